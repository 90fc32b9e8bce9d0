//! The groups that a robust round is split into: each has a secure sum of its own, and a rule that
//! withstands spoilt ones combines their means.
//!
//! They come of the members' order that `shuffle` draws from the beacon with the context
//! `fedlora 2 mask groups`: the member at place p is in group p modulo the number of groups, so
//! their sizes differ by one at most. All members of the roster are in a group, whether they take
//! part or not: whom the aggregator leaves out moves nobody to another group.

use std::fmt;

use fedlora_common::digest::Digest;

use super::shuffle::shuffle;
use crate::ids::{GroupIndex, MemberIndex, MemberSet};

/// The group of each member.
#[derive(Clone, PartialEq, Eq)]
pub struct Groups {
    count: u16,
    /// By member.
    of: Vec<GroupIndex>,
}

impl Groups {
    /// All `members` are in one group.
    pub fn one(members: usize) -> Self {
        Self {
            count: 1,
            of: vec![GroupIndex(0); members],
        }
    }

    /// `count` groups of `members`, drawn from `beacon`. One group needs no drawing.
    pub fn draw(members: usize, count: u16, beacon: &Digest) -> Self {
        let mut groups = Self {
            count: count.max(1),
            of: vec![GroupIndex(0); members],
        };
        let order = shuffle(members, "fedlora 2 mask groups", beacon);
        for (member, group) in order.into_iter().zip((0..groups.count).cycle()) {
            groups.of[usize::from(member.0)] = GroupIndex(group);
        }
        groups
    }

    /// How many groups there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The group of `member`; `None` for one that is not on the roster.
    pub fn of(&self, member: MemberIndex) -> Option<GroupIndex> {
        self.of.get(usize::from(member.0)).copied()
    }

    /// Every group with its members among these, by group.
    pub fn split(&self, members: &MemberSet) -> Vec<(GroupIndex, MemberSet)> {
        let empty = |group| (GroupIndex(group), MemberSet::new());
        let mut split: Vec<_> = (0..self.count).map(empty).collect();
        for member in members.iter() {
            if let Some(GroupIndex(group)) = self.of(member) {
                split[usize::from(group)].1.insert(member);
            }
        }
        split
    }

    /// The groups with `minimum` or more members among these, with those members: what a sum can be
    /// made of. The others' members are in no sum.
    pub fn whole(&self, members: &MemberSet, minimum: usize) -> Vec<(GroupIndex, MemberSet)> {
        let mut split = self.split(members);
        split.retain(|(_, of_group)| of_group.len() >= minimum.max(1));
        split
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Groups({} of {} members)", self.count, self.of.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beacon(number: u64) -> Digest {
        Digest::of("test beacon", &number.to_le_bytes())
    }

    #[test]
    fn groups_are_disjoint_and_as_large_as_each_other_but_for_one() {
        for (members, count) in [(9, 3), (11, 3), (64, 7), (5, 1)] {
            let groups = Groups::draw(members, count, &beacon(1));
            let all: MemberSet = (0..members as u16).map(MemberIndex).collect();
            let split = groups.split(&all);
            assert_eq!((groups.count(), split.len()), (count, count.into()));
            let sizes = split.iter().map(|(_, members)| members.len());
            let sizes: Vec<_> = sizes.collect();
            assert_eq!(sizes.iter().sum::<usize>(), members);
            let (least, most) = (sizes.iter().min(), sizes.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{sizes:?}");
        }
        assert_eq!(Groups::draw(9, 3, &beacon(1)).of(MemberIndex(9)), None);
        assert_eq!(Groups::draw(9, 1, &beacon(1)), Groups::one(9));
        let shown = format!("{:?}", Groups::draw(9, 3, &beacon(1)));
        assert_eq!(shown, "Groups(3 of 9 members)");
    }

    #[test]
    fn a_group_with_too_few_left_is_in_no_sum() {
        let groups = Groups::draw(9, 3, &beacon(1));
        let all: MemberSet = (0..9).map(MemberIndex).collect();
        assert_eq!(groups.whole(&all, 3), groups.split(&all));
        let gone = MemberIndex(4);
        let rest: MemberSet = all.iter().filter(|member| *member != gone).collect();
        let whole = groups.whole(&rest, 3);
        assert_eq!(whole.len(), 2);
        let thin = groups.of(gone).unwrap();
        assert!(whole.iter().all(|(group, _)| *group != thin));
        assert_eq!(groups.whole(&rest, 2).len(), 3);
        assert!(groups.whole(&MemberSet::new(), 0).is_empty());
    }

    /// A pair of nine members is in one group of three with probability 1/4: of 4,000 draws 1,000,
    /// with a standard deviation of 27.
    #[test]
    fn each_pair_is_as_often_in_one_group() {
        let mut together = [[0; 9]; 9];
        for number in 0..4000 {
            let groups = Groups::draw(9, 3, &beacon(number));
            for a in 0..9 {
                for b in 0..a {
                    let same = groups.of(MemberIndex(a)) == groups.of(MemberIndex(b));
                    together[usize::from(a)][usize::from(b)] += u32::from(same);
                }
            }
        }
        for (a, row) in together.iter().enumerate() {
            for count in &row[..a] {
                assert!((860..1140).contains(count), "{together:?}");
            }
        }
    }
}
