//! Who shares secrets and pair masks with whom.
//!
//! Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020:
//! a Harary graph on a random ring. How many neighbours that takes is
//! [`sparse_parameters`](super::parameters::sparse_parameters).
//!
//! # The ring
//!
//! The members stand on a ring of as many places, in the order that `shuffle.rs` draws from the
//! beacon with the context `fedlora 2 neighbour ring`.
//!
//! With k neighbours each, the members at places p and q are neighbours where q is 1 to k / 2
//! places from p, either way round.
//!
//! # Groups
//!
//! Neighbours hold shares of each other's secrets. Where the members are in
//! [groups](super::groups::Groups), only those neighbours share a pair mask that are of one group:
//! each group's sum then shows by itself.

use std::fmt;

use fedlora_common::digest::Digest;

use super::groups::Groups;
use super::shuffle::{indices, shuffle};
use crate::ids::{MemberIndex, MemberSet};

/// The largest number of holders of one member's secrets: GF(256) has no more coordinates.
pub const MAX_HOLDERS: usize = 255;

/// The largest number of members: a member's index has 16 bits.
pub const MAX_MEMBERS: usize = 1 << 16;

/// The neighbours of every member in one attempt at a round.
///
/// A member that is not in the graph has no neighbours and no holders.
#[derive(Clone, PartialEq, Eq)]
pub struct NeighbourGraph {
    members: usize,
    shape: Shape,
    groups: Groups,
}

#[derive(Clone, PartialEq, Eq)]
enum Shape {
    Complete,
    Ring(Ring),
}

impl NeighbourGraph {
    /// Everybody is everybody's neighbour.
    ///
    /// # Panics
    /// With more than [`MAX_HOLDERS`] members: their secrets could not be shared.
    pub fn complete(members: usize) -> Self {
        assert!(
            members <= MAX_HOLDERS,
            "a complete graph has at most {MAX_HOLDERS} members"
        );
        Self {
            members,
            shape: Shape::Complete,
            groups: Groups::one(members),
        }
    }

    /// Every member has `neighbours` others, those nearest to it on a ring drawn from `beacon`,
    /// half of them on either side. With `neighbours` >= `members` - 1 the graph is complete.
    ///
    /// # Errors
    /// [`GraphError`] where `neighbours` is odd or zero and the graph not complete, where a
    /// member's secrets would have more than [`MAX_HOLDERS`] holders, or with more than
    /// [`MAX_MEMBERS`].
    pub fn regular(members: usize, neighbours: usize, beacon: &Digest) -> Result<Self, GraphError> {
        if members > MAX_MEMBERS {
            return Err(GraphError::Members { got: members });
        }
        let degree = neighbours.min(members.saturating_sub(1));
        if degree >= MAX_HOLDERS {
            return Err(GraphError::Holders { neighbours: degree });
        }
        if neighbours + 1 >= members {
            return Ok(Self::complete(members));
        }
        if neighbours == 0 || neighbours % 2 == 1 {
            return Err(GraphError::Neighbours { got: neighbours });
        }
        Ok(Self {
            members,
            shape: Shape::Ring(Ring::draw(members, neighbours / 2, beacon)),
            groups: Groups::one(members),
        })
    }

    /// The same graph, in which pair masks are within these groups. The holders of secrets stay.
    pub fn in_groups(self, groups: Groups) -> Self {
        Self { groups, ..self }
    }

    /// The groups whose sums show by themselves: one where all are in one sum.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The neighbours that `member` has a pair mask with: those of its group, ascending.
    pub fn mask_partners(&self, member: MemberIndex) -> impl Iterator<Item = MemberIndex> {
        let own = self.groups.of(member);
        let neighbours = self.neighbours(member).into_iter();
        neighbours.filter(move |one| self.groups.of(*one) == own)
    }

    /// How many members the graph has.
    pub fn members(&self) -> usize {
        self.members
    }

    /// How many neighbours each member has.
    pub fn degree(&self) -> usize {
        match &self.shape {
            Shape::Complete => self.members.saturating_sub(1),
            Shape::Ring(ring) => 2 * ring.reach,
        }
    }

    /// The neighbours of `member`, ascending, without itself.
    pub fn neighbours(&self, member: MemberIndex) -> Vec<MemberIndex> {
        let mut neighbours = self.unordered(member);
        neighbours.sort_unstable();
        neighbours
    }

    /// Whether `a` and `b` share secrets. No member is its own neighbour.
    pub fn are_neighbours(&self, a: MemberIndex, b: MemberIndex) -> bool {
        if a == b || !self.contains(a) || !self.contains(b) {
            return false;
        }
        match &self.shape {
            Shape::Complete => true,
            Shape::Ring(ring) => ring.distance(a, b) <= ring.reach,
        }
    }

    /// Who holds shares of `member`'s secrets: its neighbours and itself, ascending. A holder's
    /// place on this list is its Shamir place; its coordinate is one more.
    pub fn holders(&self, member: MemberIndex) -> Vec<MemberIndex> {
        let mut holders = self.unordered(member);
        if self.contains(member) {
            holders.push(member);
        }
        holders.sort_unstable();
        holders
    }

    /// The place of `holder` on the list of `owner`'s [holders](Self::holders), from 0; `None`
    /// where it is not one.
    pub fn holder_place(&self, owner: MemberIndex, holder: MemberIndex) -> Option<usize> {
        let holds = self.are_neighbours(owner, holder);
        if !(holds || owner == holder && self.contains(owner)) {
            return None;
        }
        let lower = self.unordered(owner).into_iter().filter(|&n| n < holder);
        Some(lower.count() + usize::from(owner < holder))
    }

    /// Whether pair masks connect all of `members`: otherwise a sum over them falls apart into
    /// sums of parts, each of which shows by itself.
    pub fn connects(&self, members: &MemberSet) -> bool {
        match &self.shape {
            Shape::Complete => true,
            Shape::Ring(ring) => ring.gaps(members) <= 1,
        }
    }

    fn contains(&self, member: MemberIndex) -> bool {
        usize::from(member.0) < self.members
    }

    fn unordered(&self, member: MemberIndex) -> Vec<MemberIndex> {
        if !self.contains(member) {
            return Vec::new();
        }
        match &self.shape {
            Shape::Complete => indices(self.members).filter(|&n| n != member).collect(),
            Shape::Ring(ring) => ring.around(member).collect(),
        }
    }
}

impl fmt::Debug for NeighbourGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (members, degree) = (self.members, self.degree());
        write!(f, "NeighbourGraph({members} members, {degree} neighbours)")
    }
}

/// The members on their ring. There are more than 2 * `reach` + 1 of them.
#[derive(Clone, PartialEq, Eq)]
struct Ring {
    /// The member at each place.
    order: Vec<MemberIndex>,
    /// The place of each member.
    places: Vec<u16>,
    /// How many places away the farthest neighbour is.
    reach: usize,
}

impl Ring {
    /// Draws the ring of `members`, 2 to [`MAX_MEMBERS`] of them.
    fn draw(members: usize, reach: usize, beacon: &Digest) -> Self {
        let order = shuffle(members, "fedlora 2 neighbour ring", beacon);
        let mut places = vec![0; members];
        for (place, member) in indices(members).zip(&order) {
            places[usize::from(member.0)] = place.0;
        }
        Self {
            order,
            places,
            reach,
        }
    }

    /// Places between `a` and `b`, the shorter way round.
    fn distance(&self, a: MemberIndex, b: MemberIndex) -> usize {
        let apart = self.place(a).abs_diff(self.place(b));
        apart.min(self.order.len() - apart)
    }

    /// How many neighbouring places of `members` on the ring are farther apart than masks reach.
    fn gaps(&self, members: &MemberSet) -> usize {
        let places = (0..self.order.len()).filter(|place| members.contains(self.order[*place]));
        let places: Vec<_> = places.collect();
        let next = places.iter().skip(1).copied();
        let first = places.first().map(|first| first + self.order.len());
        let pairs = places.iter().zip(next.chain(first));
        pairs
            .filter(|(place, next)| *next - *place > self.reach)
            .count()
    }

    fn around(&self, member: MemberIndex) -> impl Iterator<Item = MemberIndex> {
        let (place, length) = (self.place(member), self.order.len());
        (1..=self.reach)
            .flat_map(move |step| [place + step, place + length - step])
            .map(move |place| self.order[place % length])
    }

    fn place(&self, member: MemberIndex) -> usize {
        usize::from(self.places[usize::from(member.0)])
    }
}

/// A graph that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// More members than indices.
    #[error("{got} members: a graph has at most {MAX_MEMBERS}")]
    Members {
        /// The number of members.
        got: usize,
    },
    /// An odd number of neighbours, or none, on a ring.
    #[error("{got} neighbours: on a ring the number is even and at least 2")]
    Neighbours {
        /// The number asked for.
        got: usize,
    },
    /// Groups with no beacon to draw them from.
    #[error("groups are drawn from a beacon, and the round has none")]
    Beacon,
    /// More holders of one member's secrets than Shamir coordinates.
    #[error("{neighbours} neighbours and the member itself exceed {MAX_HOLDERS} holders")]
    Holders {
        /// The neighbours that each member would have.
        neighbours: usize,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn beacon(number: u64) -> Digest {
        Digest::of("test beacon", &number.to_le_bytes())
    }

    /// What must hold of any graph of `members` in which each has `degree` neighbours.
    fn check(graph: &NeighbourGraph, members: usize, degree: usize) {
        assert_eq!((graph.members(), graph.degree()), (members, degree));
        for a in indices(graph.members()) {
            let neighbours: BTreeSet<_> = graph.neighbours(a).into_iter().collect();
            assert_eq!(neighbours.len(), degree);
            assert!(graph.neighbours(a).is_sorted() && graph.holders(a).is_sorted());
            for b in indices(graph.members()) {
                assert_eq!(graph.are_neighbours(a, b), neighbours.contains(&b));
                assert_eq!(graph.are_neighbours(a, b), graph.are_neighbours(b, a));
                let place = graph.holders(a).iter().position(|&holder| holder == b);
                assert_eq!(graph.holder_place(a, b), place);
                assert_eq!(place.is_some(), a == b || neighbours.contains(&b));
            }
        }
    }

    #[test]
    fn in_a_complete_graph_all_are_neighbours() {
        for members in [0_usize, 1, 2, 64] {
            let degree = members.saturating_sub(1);
            check(&NeighbourGraph::complete(members), members, degree);
        }
        let graph = NeighbourGraph::complete(5);
        assert_eq!(graph.holder_place(MemberIndex(1), MemberIndex(4)), Some(4));
        assert_eq!(NeighbourGraph::regular(64, 63, &beacon(1)), {
            Ok(NeighbourGraph::complete(64))
        });
        assert_eq!(
            NeighbourGraph::complete(MAX_HOLDERS)
                .holders(MemberIndex(3))
                .len(),
            255
        );
    }

    #[test]
    fn two_runs_of_missing_members_as_long_as_masks_reach_split_the_ring() {
        let graph = NeighbourGraph::regular(100, 12, &beacon(1)).unwrap();
        let Shape::Ring(ring) = &graph.shape else {
            panic!("a ring");
        };
        let without = |gone: &[std::ops::Range<usize>]| -> MemberSet {
            let there = |place: &usize| !gone.iter().any(|run| run.contains(place));
            (0..100)
                .filter(there)
                .map(|place| ring.order[place])
                .collect()
        };
        assert!(graph.connects(&without(&[])));
        assert!(graph.connects(&without(&[10..40, 40..60])));
        assert!(graph.connects(&without(&[10..16, 30..35])));
        assert!(!graph.connects(&without(&[10..16, 30..36])));
        assert!(!graph.connects(&without(&[0..6, 50..60])));
        // Across the ring's end.
        assert!(!graph.connects(&without(&[0..3, 97..100, 50..56])));
        let complete = NeighbourGraph::complete(100);
        assert!(complete.connects(&without(&[10..16, 30..36])));
    }

    #[test]
    fn impossible_graphs_are_refused() {
        let regular = |members, neighbours| {
            NeighbourGraph::regular(members, neighbours, &beacon(1)).map(|_| ())
        };
        for got in [0, 1, 3, 97] {
            assert_eq!(regular(100, got), Err(GraphError::Neighbours { got }));
        }
        let neighbours = 255;
        assert_eq!(regular(256, 300), Err(GraphError::Holders { neighbours }));
        assert_eq!(
            regular(1000, 256),
            Err(GraphError::Holders { neighbours: 256 })
        );
        assert_eq!(
            regular(MAX_MEMBERS + 1, 4),
            Err(GraphError::Members { got: 65_537 })
        );
        for (members, neighbours) in [(255, usize::MAX - 1), (256, 254), (MAX_MEMBERS, 4)] {
            assert_eq!(regular(members, neighbours), Ok(()));
        }
    }

    #[test]
    #[should_panic(expected = "at most 255 members")]
    fn a_complete_graph_of_more_than_the_coordinates_is_refused() {
        NeighbourGraph::complete(256);
    }

    #[test]
    fn who_is_not_in_the_graph_has_no_place_in_it() {
        let ring = NeighbourGraph::regular(20, 4, &beacon(1)).unwrap();
        for graph in [NeighbourGraph::complete(20), ring] {
            let (inside, outside) = (MemberIndex(19), MemberIndex(20));
            assert!(graph.neighbours(outside).is_empty() && graph.holders(outside).is_empty());
            assert!(!graph.are_neighbours(inside, outside));
            assert!(!graph.are_neighbours(outside, inside));
            assert_eq!(graph.holder_place(outside, outside), None);
            assert_eq!(graph.holder_place(inside, outside), None);
        }
    }

    #[test]
    fn the_ring_depends_on_the_beacon_alone() {
        let ring = |number| NeighbourGraph::regular(100, 12, &beacon(number)).unwrap();
        assert_eq!(ring(1), ring(1));
        assert_ne!(ring(1), ring(2));
        assert_eq!(
            format!("{:?}", ring(1)),
            "NeighbourGraph(100 members, 12 neighbours)"
        );
    }

    /// 24 orders of four members, 500 expected of each: chi-squared with 23 degrees of freedom
    /// exceeds 60 with probability 4e-5, and the beacons are fixed.
    #[test]
    fn every_order_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::<Vec<u16>, f64>::new();
        for number in 0..12_000 {
            let ring = Ring::draw(4, 1, &beacon(number));
            let order = ring.order.iter().map(|member| member.0).collect();
            *counts.entry(order).or_default() += 1.0;
        }
        assert_eq!(counts.len(), 24);
        let chi: f64 = counts.values().map(|n| (n - 500.0).powi(2) / 500.0).sum();
        assert!(chi < 60.0, "chi-squared {chi}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rings_are_regular_and_symmetric(
            members in 4_usize..160,
            half in 1_usize..40,
            number: u64,
        ) {
            let graph = NeighbourGraph::regular(members, 2 * half, &beacon(number)).unwrap();
            check(&graph, members, (2 * half).min(members - 1));
        }
    }
}
