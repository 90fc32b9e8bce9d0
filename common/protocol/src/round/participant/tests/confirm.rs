//! M4 and M5: survivor lists, the signatures on them, and what is revealed.

use std::collections::BTreeSet;

use crate::ids::MemberIndex;
use crate::round::harness::{Federation, Signed, forged};
use crate::round::participant::Refusal;
use crate::wire::messages::{Confirmation, RevealedShare, Survivors};
use crate::wire::{Unverified, Verified};
use fedlora_common::digest::Digest;

/// The first member's refusal of the survivor list, changed.
fn refused_list(federation: &Federation, change: impl FnOnce(&mut Survivors)) -> Refusal {
    let mut uploaded = federation.opened().shared().uploaded(federation);
    change(&mut uploaded.list);
    let first = uploaded.members.remove(0);
    first.survivors(uploaded.list).map(|_| ()).unwrap_err()
}

/// The first member's refusal of the signatures, changed.
fn refused_signatures(federation: &Federation, change: impl FnOnce(&mut Signed)) -> Refusal {
    let mut signed = federation
        .opened()
        .shared()
        .uploaded(federation)
        .signed(federation);
    change(&mut signed);
    let first = signed.members.remove(0);
    first
        .confirmations(signed.confirmations, &mut signed.ledgers[0])
        .map(|_| ())
        .unwrap_err()
}

fn confirmation(federation: &Federation, place: u16, list: Digest) -> Unverified<Confirmation> {
    let body = Confirmation {
        member: MemberIndex(place),
        list,
    };
    let key = &federation.identities[usize::from(place)];
    Verified::sign(body, key, &federation.open.digest())
        .unverified()
        .clone()
}

const MESSAGE: &str = "confirmations";

#[test]
fn a_list_without_the_members_own_update() {
    let federation = Federation::new(5);
    let refusal = refused_list(&federation, |list| {
        list.0.remove(&MemberIndex(0));
    });
    assert_eq!(refusal, Refusal::OwnUpdate);
    let refusal = refused_list(&federation, |list| {
        list.0
            .insert(MemberIndex(0), Digest::of("test", b"another vector"));
    });
    assert_eq!(refusal, Refusal::OwnUpdate);
}

#[test]
fn a_single_contributor_and_too_few_survivors() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let needed = federation.policy.quorum();
        for got in [1, needed - 1] {
            let refusal = refused_list(&federation, |list| {
                while list.0.len() > got {
                    list.0.pop_last();
                }
            });
            let message = "survivors";
            assert_eq!(
                refusal,
                Refusal::TooFew {
                    message,
                    got,
                    needed
                }
            );
        }
    }
}

#[test]
fn a_survivor_that_this_member_shares_no_masks_with() {
    let federation = Federation::new(6);
    let stranger = MemberIndex(6);
    let refusal = refused_list(&federation, |list| {
        list.0.insert(stranger, Digest::of("test", b""));
    });
    assert_eq!(refusal, Refusal::UnknownSurvivor { member: stranger });

    // A member of the roster whose shares were withheld from this one.
    let mut shared = federation.opened().shared();
    let mut shares = shared.for_holder(0);
    let member = MemberIndex(5);
    shares.remove(&member);
    let ready = shared.members.remove(0).peer_shares(shares).unwrap();
    let (first, _, claim) = ready.mask(federation.update(0));
    let list = Survivors(
        (0..6)
            .map(|k| (MemberIndex(k), claim.claimed().vector))
            .collect(),
    );
    assert_eq!(
        first.survivors(list).map(|_| ()).unwrap_err(),
        Refusal::UnknownSurvivor { member }
    );
}

/// The aggregator shows one half of the members one list and the rest another: no half has
/// enough signatures, with all colluders signing both.
#[test]
fn two_survivor_lists() {
    for members in [4, 5, 6, 10] {
        let federation = Federation::new(members);
        let (quorum, colluders) = (federation.policy.quorum(), federation.policy.colluders());
        let uploaded = federation.opened().shared().uploaded(&federation);
        let honest = members - colluders;
        let open = federation.open.digest();
        let mut lists = [uploaded.list.clone(), uploaded.list.clone()];
        // The second differs: in who is on it where the quorum allows, else in a colluder's
        // vector.
        if quorum < members {
            lists[1].0.remove(&MemberIndex(members as u16 - 1));
        } else {
            lists[1].0.insert(
                MemberIndex(members as u16 - 1),
                Digest::of("test", b"other"),
            );
        }
        let digests = [lists[0].digest(&open), lists[1].digest(&open)];
        let mut signatures: [Vec<_>; 2] = Default::default();
        let mut waiting = Vec::new();
        for (place, member) in uploaded.members.into_iter().take(honest).enumerate() {
            let shown = place % 2;
            let (member, signature) = member.survivors(lists[shown].clone()).unwrap();
            let body = Confirmation {
                member: MemberIndex(place as u16),
                list: digests[shown],
            };
            signatures[shown].push(Unverified::from_parts(body, signature));
            waiting.push((shown, member));
        }
        for (shown, digest) in digests.into_iter().enumerate() {
            for place in honest..members {
                if lists[shown].0.contains_key(&MemberIndex(place as u16)) {
                    signatures[shown].push(confirmation(&federation, place as u16, digest));
                }
            }
        }
        let mut ledgers = uploaded.ledgers;
        let mut revealed = BTreeSet::new();
        for (place, (shown, member)) in waiting.into_iter().enumerate() {
            // Each is given all signatures that its own list has.
            match member.confirmations(signatures[shown].clone(), &mut ledgers[place]) {
                Ok(_) => {
                    revealed.insert(shown);
                }
                Err(refusal) => assert!(matches!(refusal, Refusal::TooFew { .. }), "{refusal}"),
            }
        }
        assert!(
            revealed.len() < 2,
            "both lists were confirmed among {members} members"
        );
    }
}

#[test]
fn a_signature_on_another_list() {
    let federation = Federation::new(5);
    let member = MemberIndex(3);
    let refusal = refused_signatures(&federation, |signed| {
        let mut other = signed.list.clone();
        other.0.pop_last();
        let digest = other.digest(&federation.open.digest());
        signed.confirmations[3] = confirmation(&federation, 3, digest);
    });
    assert_eq!(refusal, Refusal::OtherList { member });
}

#[test]
fn too_few_signatures() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let needed = federation.policy.threshold();
        for got in [0, needed - 1] {
            let refusal =
                refused_signatures(&federation, |signed| signed.confirmations.truncate(got));
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
}

#[test]
fn one_signature_counted_twice() {
    let federation = Federation::new(5);
    let member = MemberIndex(1);
    let refusal = refused_signatures(&federation, |signed| {
        signed.confirmations[2] = signed.confirmations[1].clone();
    });
    assert_eq!(
        refusal,
        Refusal::Repeated {
            message: MESSAGE,
            member
        }
    );
}

#[test]
fn a_forged_signature_and_one_of_another_round() {
    let federation = Federation::new(5);
    let member = MemberIndex(2);
    let refusal = refused_signatures(&federation, |signed| {
        signed.confirmations[2] = forged(*signed.confirmations[2].claimed());
    });
    assert_eq!(
        refusal,
        Refusal::Signature {
            message: MESSAGE,
            member
        }
    );
    let refusal = refused_signatures(&federation, |signed| {
        let body = *signed.confirmations[2].claimed();
        let other_round = Digest::of("test", b"another opening");
        signed.confirmations[2] = Verified::sign(body, &federation.identities[2], &other_round)
            .unverified()
            .clone();
    });
    assert_eq!(
        refusal,
        Refusal::Signature {
            message: MESSAGE,
            member
        }
    );
}

#[test]
fn a_signature_of_a_member_that_is_not_on_the_list() {
    let federation = Federation::new(6);
    let uploaded = federation.opened().shared().uploaded(&federation);
    let mut list = uploaded.list;
    let dropped = MemberIndex(5);
    list.0.remove(&dropped);
    let first = uploaded.members.into_iter().next().unwrap();
    let (first, _) = first.survivors(list.clone()).unwrap();
    let digest = list.digest(&federation.open.digest());
    let mut ledgers = uploaded.ledgers;
    for outsider in [dropped, MemberIndex(6)] {
        let mut signatures: Vec<_> = (0..5)
            .map(|place| confirmation(&federation, place, digest))
            .collect();
        signatures.push(match outsider {
            member if member == dropped => confirmation(&federation, 5, digest),
            member => forged(Confirmation {
                member,
                list: digest,
            }),
        });
        let again = federation.opened().shared().uploaded(&federation);
        let (again, _) = again
            .members
            .into_iter()
            .next()
            .unwrap()
            .survivors({
                let mut list = again.list;
                list.0.remove(&dropped);
                list
            })
            .unwrap();
        assert_eq!(
            again
                .confirmations(signatures, &mut ledgers[0])
                .map(|_| ())
                .unwrap_err(),
            Refusal::Stranger {
                message: MESSAGE,
                member: outsider
            }
        );
    }
    drop(first);
}

/// Never both shares of one member: of a survivor the seed, of a dropped one the secret.
#[test]
fn of_each_member_one_share_is_revealed() {
    let federation = Federation::new(6);
    let uploaded = federation.opened().shared().uploaded(&federation);
    let mut list = uploaded.list;
    let dropped = MemberIndex(5);
    list.0.remove(&dropped);
    let digest = list.digest(&federation.open.digest());
    let signatures: Vec<_> = (0..5)
        .map(|place| confirmation(&federation, place, digest))
        .collect();
    let mut ledgers = uploaded.ledgers;
    for (place, member) in uploaded.members.into_iter().take(5).enumerate() {
        let (member, _) = member.survivors(list.clone()).unwrap();
        let (_, shares) = member
            .confirmations(signatures.clone(), &mut ledgers[place])
            .unwrap();
        assert_eq!(shares.len(), 6);
        for (owner, share) in shares {
            let survives = matches!(share, RevealedShare::SelfMask(_));
            assert_eq!(survives, owner != dropped);
        }
    }
}
