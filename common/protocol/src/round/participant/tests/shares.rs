//! M2 of the others: strangers, too few, and shares that do not open.

use std::collections::BTreeMap;

use crate::crypto::agreement::Encapsulation;
use crate::crypto::os_rng;
use crate::ids::{MemberIndex, MemberSet};
use crate::round::harness::{Federation, Shared};
use crate::round::participant::Refusal;
use crate::wire::messages::{DealtShares, RevealedShare, RoundMessage, Survivors};

const MESSAGE: &str = "shares";

type Shares = BTreeMap<MemberIndex, DealtShares>;

/// The first member's refusal of the shares, changed.
fn refused(federation: &Federation, change: impl FnOnce(&mut Shares)) -> Refusal {
    let mut shared = federation.opened().shared();
    let mut shares = shared.for_holder(0);
    change(&mut shares);
    let first = shared.members.remove(0);
    first.peer_shares(shares).map(|_| ()).unwrap_err()
}

#[test]
fn a_sender_without_keys_or_oneself() {
    let federation = Federation::new(5);
    for sender in [0, 5] {
        let member = MemberIndex(sender);
        let refusal = refused(&federation, |shares| {
            let any = shares[&MemberIndex(1)].clone();
            shares.insert(member, any);
        });
        assert_eq!(
            refusal,
            Refusal::Stranger {
                message: MESSAGE,
                member
            }
        );
    }
}

#[test]
fn too_few_senders() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let needed = federation.policy.threshold();
        let refusal = refused(&federation, |shares| {
            // With its own, one fewer than needed.
            while shares.len() + 1 >= needed {
                shares.pop_last();
            }
        });
        let got = needed - 1;
        assert_eq!(
            refusal,
            Refusal::TooFew {
                message: MESSAGE,
                got,
                needed
            }
        );
    }
}

/// What the first member says that it holds, and reveals, after it was given `shares`.
fn revealed(
    federation: &Federation,
    change: impl FnOnce(&Shared, &mut Shares),
) -> BTreeMap<MemberIndex, RevealedShare> {
    let mut shared = federation.opened().shared();
    let mut shares = shared.for_holder(0);
    change(&shared, &mut shares);
    let (member, statement) = shared.members.remove(0).peer_shares(shares).unwrap();
    let all: MemberSet = federation.roster.indices().collect();
    let ready = member.dealers(all.clone()).unwrap();
    let (member, _, claim) = ready.mask(federation.update(0));
    let claims = all.iter().map(|member| (member, claim.claimed().vector));
    let claims = Survivors(claims.collect());
    let list = claims.list();
    let digest = list.digest(&shared.transcript, &all);
    let (member, _) = member
        .survivors(list, &claims.proof(MemberIndex(0)))
        .unwrap();
    let confirmations = federation.confirmations(digest, 0..federation.len() as u16);
    let (_, message) = member
        .confirmations(confirmations, &mut shared.ledgers[0])
        .unwrap();
    let (RoundMessage::Reveal { shares, .. }, RoundMessage::Held { dealers, .. }) =
        (message, statement)
    else {
        panic!("a statement, and shares");
    };
    // Its own it holds without saying so.
    let mut held: Vec<_> = dealers.iter().chain([MemberIndex(0)]).collect();
    held.sort();
    assert!(shares.keys().copied().eq(held));
    shares
}

#[test]
fn shares_that_do_not_open_are_never_revealed() {
    let federation = Federation::new(5);
    assert_eq!(revealed(&federation, |_, _| ()).len(), 5);
    type SharesChange = fn(&Shared, &mut Shares);
    let changes: [SharesChange; 7] = [
        // Changed on the way, cut short, sealed for another holder, and of another sender.
        |_, shares| shares.get_mut(&TWO).unwrap().sealed.0[5] ^= 1,
        |_, shares| shares.get_mut(&TWO).unwrap().sealed.0.truncate(20),
        |shared, shares| {
            let for_another = shared.deals[2].claimed().shares[&MemberIndex(3)].clone();
            shares.insert(TWO, for_another);
        },
        |_, shares| {
            let of_another = shares[&MemberIndex(1)].clone();
            shares.insert(TWO, of_another);
        },
        // What travels beside them in the open is bound to them.
        |_, shares| {
            let of_another = shares[&MemberIndex(1)].commitments;
            shares.get_mut(&TWO).unwrap().commitments = of_another;
        },
        |_, shares| shares.get_mut(&TWO).unwrap().seal = Encapsulation::default(),
        |_, shares| {
            let other = shares[&MemberIndex(1)].seal.clone();
            shares.get_mut(&TWO).unwrap().mask = other;
        },
    ];
    for change in changes {
        let shares = revealed(&federation, change);
        assert_eq!(shares.len(), 4);
        assert!(!shares.contains_key(&TWO));
    }
}

const TWO: MemberIndex = MemberIndex(2);

/// A dealer that commits to other shares than it gives.
#[test]
fn a_share_that_is_not_what_was_committed_to_is_not_held() {
    let federation = Federation::new(5);
    let mut shared = federation.opened().shared();
    let other = federation.opened().shared_with(79);
    // Another deal of the same member in the same attempt: its seal opens with its own
    // commitments alone.
    let mut shares = shared.for_holder(0);
    let mut mixed = other.for_holder(0)[&TWO].clone();
    mixed.commitments = shares[&TWO].commitments;
    shares.insert(TWO, mixed);
    let (_, statement) = shared.members.remove(0).peer_shares(shares).unwrap();
    let RoundMessage::Held { dealers, .. } = statement else {
        panic!("a statement of what it holds");
    };
    assert_eq!(dealers, [1, 3, 4].map(MemberIndex).into_iter().collect());
}

/// Two members that were shown different cohorts: what they seal to each other does not open.
#[test]
fn shares_are_bound_to_the_whole_cohort() {
    let federation = Federation::new(5);
    let mut opened = federation.opened();
    opened.keys.pop();
    let fewer = opened.for_member(1);
    let second = opened.members.remove(1);
    let (_, deal) = second.peer_keys(fewer, &mut os_rng()).unwrap();
    let shares = revealed(&federation, |_, shares| {
        let odd = deal.claimed().shares[&MemberIndex(0)].clone();
        shares.insert(MemberIndex(1), odd);
    });
    assert!(!shares.contains_key(&MemberIndex(1)));
}

/// The refusal of the dealers, of the first member, that `withheld` dealt nothing to.
fn refused_dealers(federation: &Federation, withheld: &[u16], dealers: MemberSet) -> Refusal {
    let mut shared = federation.opened().shared();
    let mut shares = shared.for_holder(0);
    shares.retain(|dealer, _| !withheld.contains(&dealer.0));
    let (member, _) = shared.members.remove(0).peer_shares(shares).unwrap();
    member.dealers(dealers).map(|_| ()).unwrap_err()
}

#[test]
fn dealers_without_the_member_itself_or_with_others_than_those_it_saw() {
    let federation = Federation::new(6);
    let of = |places: std::ops::Range<u16>| places.map(MemberIndex).collect::<MemberSet>();
    assert_eq!(
        refused_dealers(&federation, &[], of(1..6)),
        Refusal::LeftOut
    );
    let message = "dealers";
    let member = MemberIndex(6);
    assert_eq!(
        refused_dealers(&federation, &[], of(0..7)),
        Refusal::Stranger { message, member }
    );
    let member = MemberIndex(5);
    assert_eq!(
        refused_dealers(&federation, &[5], of(0..6)),
        Refusal::Undealt { member }
    );
    let needed = federation.policy.quorum();
    assert_eq!(
        refused_dealers(&federation, &[], of(0..needed as u16 - 1)),
        Refusal::TooFew {
            message,
            got: needed - 1,
            needed,
        }
    );
}
