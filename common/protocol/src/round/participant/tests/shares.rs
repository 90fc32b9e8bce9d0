//! M2 of the others: strangers, too few, and shares that do not open.

use std::collections::BTreeMap;

use crate::crypto::os_rng;
use crate::ids::MemberIndex;
use crate::round::harness::{Federation, Shared};
use crate::round::participant::Refusal;
use crate::wire::Unverified;
use crate::wire::messages::{RevealedShare, SealedShares, Survivors};

const MESSAGE: &str = "shares";

/// The first member's refusal of the shares, changed.
fn refused(
    federation: &Federation,
    change: impl FnOnce(&mut BTreeMap<MemberIndex, SealedShares>),
) -> Refusal {
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
            shares.insert(member, SealedShares(vec![0; 80]));
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
        let needed = federation.policy.quorum();
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

/// What the first member reveals after it was given `shares`.
fn revealed(
    federation: &Federation,
    change: impl FnOnce(&Shared, &mut BTreeMap<MemberIndex, SealedShares>),
) -> BTreeMap<MemberIndex, RevealedShare> {
    let mut shared = federation.opened().shared();
    let mut shares = shared.for_holder(0);
    change(&shared, &mut shares);
    let ready = shared.members.remove(0).peer_shares(shares).unwrap();
    let (member, _, claim) = ready.mask(federation.update(0));
    let mut list = Survivors::default();
    for place in 0..federation.len() {
        list.0
            .insert(MemberIndex(place as u16), claim.claimed().vector);
    }
    let (member, _) = member.survivors(list.clone()).unwrap();
    let confirmations = confirmations(federation, &list);
    member
        .confirmations(confirmations, &mut shared.ledgers[0])
        .unwrap()
        .1
}

fn confirmations(
    federation: &Federation,
    list: &Survivors,
) -> Vec<Unverified<crate::wire::messages::Confirmation>> {
    let open = federation.open.digest();
    federation
        .identities
        .iter()
        .enumerate()
        .map(|(place, key)| {
            let body = crate::wire::messages::Confirmation {
                member: MemberIndex(place as u16),
                list: list.digest(&open),
            };
            crate::wire::Verified::sign(body, key, &open)
                .unverified()
                .clone()
        })
        .collect()
}

#[test]
fn shares_that_do_not_open_are_never_revealed() {
    let federation = Federation::new(5);
    assert_eq!(revealed(&federation, |_, _| ()).len(), 5);
    type SharesChange = fn(&Shared, &mut BTreeMap<MemberIndex, SealedShares>);
    let changes: [SharesChange; 4] = [
        // Changed on the way, cut short, sealed for another holder, and of another sender.
        |_, shares| shares.get_mut(&MemberIndex(2)).unwrap().0[5] ^= 1,
        |_, shares| shares.get_mut(&MemberIndex(2)).unwrap().0.truncate(20),
        |shared, shares| {
            let for_another = shared.sealed[2][&MemberIndex(3)].clone();
            shares.insert(MemberIndex(2), for_another);
        },
        |_, shares| {
            let of_another = shares[&MemberIndex(1)].clone();
            shares.insert(MemberIndex(2), of_another);
        },
    ];
    for change in changes {
        let shares = revealed(&federation, change);
        assert_eq!(shares.len(), 4);
        assert!(!shares.contains_key(&MemberIndex(2)));
    }
}

/// Two members that were shown different keys: what they seal to each other does not open.
#[test]
fn shares_are_bound_to_all_members_keys() {
    let federation = Federation::new(5);
    let mut opened = federation.opened();
    let mut fewer = opened.keys.clone();
    fewer.pop();
    let second = opened.members.remove(1);
    let (_, sealed) = second.peer_keys(fewer, &mut os_rng()).unwrap();
    let shares = revealed(&federation, |_, shares| {
        shares.insert(MemberIndex(1), sealed[&MemberIndex(0)].clone());
    });
    assert!(!shares.contains_key(&MemberIndex(1)));
}
