//! Rounds in groups: sums that would show too few members of one, or be of too few groups.

use crate::ids::{GroupIndex, MemberIndex, MemberSet};
use crate::plan::RobustRuleName;
use crate::round::harness::Federation;
use crate::round::participant::Refusal;
use crate::secagg::Groups;

const ZERO: MemberIndex = MemberIndex(0);

/// Twelve members in groups of four: three is the fewest of a sum, and eight the quorum.
fn federation() -> Federation {
    let federation = Federation::in_groups(12, 3, RobustRuleName::Median);
    assert_eq!(federation.policy.quorum(), 8);
    federation
}

fn groups(federation: &Federation) -> Groups {
    let joined = federation.opened().joined();
    joined.grouped(&federation.policy).unwrap().groups().clone()
}

/// The members of the first one's group but itself, and those of another group.
fn sides(federation: &Federation) -> (Vec<MemberIndex>, Vec<MemberIndex>) {
    let groups = groups(federation);
    let own = groups.of(ZERO).unwrap();
    let others = federation.roster.indices().skip(1);
    let (mates, strangers): (Vec<_>, Vec<_>) =
        others.partition(|member| groups.of(*member) == Some(own));
    let one = groups.of(strangers[0]);
    let another = strangers.into_iter();
    let another = another.filter(|member| groups.of(*member) == one);
    (mates, another.collect())
}

/// What the first member says to a survivor list without these.
fn told_survivors(federation: &Federation, without: &[MemberIndex]) -> Result<(), Refusal> {
    let mut uploaded = federation.opened().shared().uploaded(federation);
    for member in without {
        uploaded.claims.0.remove(member);
    }
    let (list, proof) = (uploaded.claims.list(), uploaded.claims.proof(ZERO));
    let first = uploaded.members.remove(0);
    let ledger = &mut uploaded.ledgers[0];
    first.survivors(list, &proof, ledger).map(|_| ())
}

fn thin(group: GroupIndex, got: usize) -> Refusal {
    let needed = 3;
    Refusal::ThinGroup { group, got, needed }
}

#[test]
fn a_list_that_shows_the_sum_of_too_few_of_a_group() {
    let federation = federation();
    let groups = groups(&federation);
    let (mates, others) = sides(&federation);
    assert_eq!(told_survivors(&federation, &[]), Ok(()));
    for side in [&mates, &others] {
        let group = groups.of(side[0]).unwrap();
        assert_eq!(told_survivors(&federation, &side[..1]), Ok(()));
        let two = told_survivors(&federation, &side[..2]);
        assert_eq!(two, Err(thin(group, 2)));
        let one = told_survivors(&federation, &side[..3]);
        assert_eq!(one, Err(thin(group, 1)));
    }
}

#[test]
fn a_list_of_too_few_groups() {
    let federation = federation();
    let (_, others) = sides(&federation);
    let (got, needed) = (2, 3);
    assert_eq!(
        told_survivors(&federation, &others),
        Err(Refusal::FewGroups { got, needed })
    );
}

/// Masks would be with the others of its group alone, and its sum no sum.
#[test]
fn dealers_of_whom_too_few_are_of_the_members_group() {
    let federation = federation();
    let (mates, others) = sides(&federation);
    let told = |without: &[MemberIndex]| {
        let mut held = federation.opened().shared().held();
        let dealers = federation.roster.indices();
        let dealers: MemberSet = dealers.filter(|one| !without.contains(one)).collect();
        held.members.remove(0).dealers(dealers).map(|_| ())
    };
    assert_eq!(told(&[]), Ok(()));
    assert_eq!(told(&mates[..1]), Ok(()));
    // Of another group it is that one's matter.
    assert_eq!(told(&others[..2]), Ok(()));
    let (message, got, needed) = ("dealers", 2, 3);
    let too_few = Refusal::TooFew {
        message,
        got,
        needed,
    };
    assert_eq!(told(&mates[..2]), Err(too_few));
}

/// Whoever is left out of the cohort, the others stay in their groups; another beacon moves them.
#[test]
fn groups_come_of_the_beacon_and_not_of_who_takes_part() {
    let federation = federation();
    let mut opened = federation.opened();
    let all = groups(&federation);
    opened.keys.truncate(9);
    let fewer = opened.joined().grouped(&federation.policy).unwrap();
    assert_eq!(fewer.groups(), &all);
    let committed = federation.committed();
    let commitments = committed.chosen(&federation, 5);
    let other = committed.opened(&federation, &commitments).joined();
    assert_ne!(other.grouped(&federation.policy).unwrap().groups(), &all);
    // Without a beacon there are none.
    let mut joined = federation.opened().joined();
    joined.beacon = None;
    assert!(joined.grouped(&federation.policy).is_err());
}
