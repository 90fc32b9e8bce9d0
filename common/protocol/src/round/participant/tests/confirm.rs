//! M4 and M5: survivor lists, the signatures on them, and what is revealed.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::sign::Signature;
use crate::ids::{MemberIndex, MemberSet};
use crate::round::harness::{Federation, Signed};
use crate::round::participant::Refusal;
use crate::wire::Verified;
use crate::wire::messages::{
    ClaimedVector, Confirmation, Confirmations, RevealedShare, RoundMessage, SurvivorList,
    Survivors, UpdateClaim,
};
use fedlora_common::digest::Digest;

/// The first member's refusal of the survivor list, changed.
fn refused_list(federation: &Federation, change: impl FnOnce(&mut Survivors)) -> Refusal {
    let mut uploaded = federation.opened().shared().uploaded(federation);
    change(&mut uploaded.claims);
    let first = uploaded.members.remove(0);
    let (list, proof) = (
        uploaded.claims.list(),
        uploaded.claims.proof(MemberIndex(0)),
    );
    first
        .survivors(list, &proof, &mut uploaded.ledgers[0])
        .map(|_| ())
        .unwrap_err()
}

/// The first member's refusal of the signatures, changed.
fn refused_signatures(federation: &Federation, change: impl FnOnce(&mut Signed)) -> Refusal {
    let mut signed = federation.opened().shared().uploaded(federation).signed();
    change(&mut signed);
    let first = signed.members.remove(0);
    first
        .confirmations(&signed.confirmations, &mut signed.ledgers[0])
        .map(|_| ())
        .unwrap_err()
}

const MESSAGE: &str = "confirmations";

/// Signatures on the list, and no claims.
fn signed_by(signatures: BTreeMap<MemberIndex, Signature>) -> Confirmations {
    Confirmations {
        signatures,
        ..Confirmations::default()
    }
}

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
fn a_proof_of_another_place_or_another_tree() {
    let federation = Federation::new(5);
    let refusal = |place, change: fn(&mut Survivors)| {
        let mut uploaded = federation.opened().shared().uploaded(&federation);
        let list = uploaded.claims.list();
        change(&mut uploaded.claims);
        let proof = uploaded.claims.proof(MemberIndex(place));
        uploaded
            .members
            .remove(0)
            .survivors(list, &proof, &mut uploaded.ledgers[0])
            .map(|_| ())
    };
    assert_eq!(refusal(0, |_| ()), Ok(()));
    assert_eq!(refusal(1, |_| ()), Err(Refusal::OwnUpdate));
    let other = |claims: &mut Survivors| {
        claims
            .0
            .insert(MemberIndex(1), Digest::of("test", b"other"));
    };
    assert_eq!(refusal(0, other), Err(Refusal::OwnUpdate));
    // A proof cut short or drawn out, and the true list under another root.
    let changed = |change: fn(&mut SurvivorList, &mut Vec<Digest>)| {
        let mut uploaded = federation.opened().shared().uploaded(&federation);
        let mut list = uploaded.claims.list();
        let mut proof = uploaded.claims.proof(MemberIndex(0));
        change(&mut list, &mut proof);
        let first = uploaded.members.remove(0);
        first
            .survivors(list, &proof, &mut uploaded.ledgers[0])
            .map(|_| ())
    };
    assert_eq!(changed(|_, _| ()), Ok(()));
    let changes: [fn(&mut SurvivorList, &mut Vec<Digest>); 6] = [
        |_, proof| proof.clear(),
        |_, proof| proof.truncate(1),
        |_, proof| proof.push(Digest::of("test", b"more")),
        |_, proof| proof.reverse(),
        |list, _| list.vectors = Digest::of("test", b"other"),
        // Its vector is under the root, and it is not among the members.
        |list, _| list.members = (1..5).map(MemberIndex).collect(),
    ];
    for change in changes {
        assert_eq!(changed(change), Err(Refusal::OwnUpdate));
    }
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

    // A member of the roster among whom no masks are.
    let mut held = federation.opened().shared().held();
    let dealers: MemberSet = (0..5).map(MemberIndex).collect();
    let ready = held.members.remove(0).dealers(dealers).unwrap();
    let (first, _, claim) = ready.mask(federation.update(0));
    let claims = Survivors(
        (0..6)
            .map(|k| (MemberIndex(k), claim.claimed().vector))
            .collect(),
    );
    let proof = claims.proof(MemberIndex(0));
    assert_eq!(
        first
            .survivors(claims.list(), &proof, &mut held.ledgers[0])
            .map(|_| ()),
        Err(Refusal::UnknownSurvivor {
            member: MemberIndex(5)
        })
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
        let mut lists = [uploaded.claims.clone(), uploaded.claims.clone()];
        // The second differs: in who is on it where the quorum allows, else in a colluder's
        // vector.
        let last = MemberIndex(members as u16 - 1);
        if quorum < members {
            lists[1].0.remove(&last);
        } else {
            lists[1].0.insert(last, Digest::of("test", b"other"));
        }
        let digests = [uploaded.digest(&lists[0]), uploaded.digest(&lists[1])];
        let mut signatures: [BTreeMap<MemberIndex, Signature>; 2] = Default::default();
        let mut waiting = Vec::new();
        let mut ledgers = uploaded.ledgers;
        for (place, member) in uploaded.members.into_iter().take(honest).enumerate() {
            let (shown, me) = (place % 2, MemberIndex(place as u16));
            let proof = lists[shown].proof(me);
            let (member, signature) = member
                .survivors(lists[shown].list(), &proof, &mut ledgers[place])
                .unwrap();
            signatures[shown].insert(me, signature);
            waiting.push((shown, member));
        }
        for (shown, digest) in digests.into_iter().enumerate() {
            let colluding = (honest..members).map(|place| place as u16);
            let listed =
                colluding.filter(|place| lists[shown].0.contains_key(&MemberIndex(*place)));
            signatures[shown].extend(federation.confirmations(digest, listed));
        }
        let claims = uploaded.claimed;
        let mut revealed = BTreeSet::new();
        for (place, (shown, member)) in waiting.into_iter().enumerate() {
            // Each is given all signatures that its own list has.
            let confirmations = Confirmations {
                signatures: signatures[shown].clone(),
                claims: claims.clone(),
            };
            match member.confirmations(&confirmations, &mut ledgers[place]) {
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
        let other = Digest::of("test", b"another list");
        signed
            .confirmations
            .signatures
            .extend(federation.confirmations(other, [3]));
    });
    let message = MESSAGE;
    assert_eq!(refusal, Refusal::Signature { message, member });
}

#[test]
fn too_few_signatures() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let needed = federation.policy.confirmations();
        for got in [1, needed - 1] {
            // Its own counts, whether it is shown or not.
            let refusal = refused_signatures(&federation, |signed| {
                let signatures = &mut signed.confirmations.signatures;
                signatures.remove(&MemberIndex(0));
                while signatures.len() > got - 1 {
                    signatures.pop_last();
                }
            });
            let message = MESSAGE;
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
fn another_members_signature_a_forged_one_and_one_of_another_round() {
    let federation = Federation::new(5);
    let member = MemberIndex(2);
    let changes: [fn(&Federation, &mut Signed); 3] = [
        |_, signed| {
            let of_another = signed.confirmations.signatures[&MemberIndex(1)];
            signed
                .confirmations
                .signatures
                .insert(MemberIndex(2), of_another);
        },
        |_, signed| {
            let forged = Signature::from_bytes([1; 64]);
            signed
                .confirmations
                .signatures
                .insert(MemberIndex(2), forged);
        },
        |federation, signed| {
            let (member, list) = (MemberIndex(2), signed.digest);
            let other_round = Digest::of("test", b"another opening");
            let body = Confirmation { member, list };
            let key = &federation.identities[2];
            let signature = Verified::sign(body, key, &other_round).signature();
            signed.confirmations.signatures.insert(member, signature);
        },
    ];
    for change in changes {
        let refusal = refused_signatures(&federation, |signed| change(&federation, signed));
        let message = MESSAGE;
        assert_eq!(refusal, Refusal::Signature { message, member });
    }
}

#[test]
fn a_signature_of_a_member_that_is_not_on_the_list() {
    let federation = Federation::new(6);
    let dropped = MemberIndex(5);
    for outsider in [dropped, MemberIndex(6)] {
        let mut uploaded = federation.opened().shared().uploaded(&federation);
        let mut claims = uploaded.claims.clone();
        claims.0.remove(&dropped);
        let digest = uploaded.digest(&claims);
        let proof = claims.proof(MemberIndex(0));
        let first = uploaded.members.remove(0);
        let (first, _) = first
            .survivors(claims.list(), &proof, &mut uploaded.ledgers[0])
            .unwrap();
        let mut signatures = federation.confirmations(digest, 0..5);
        let any = signatures[&MemberIndex(0)];
        let signed = federation.confirmations(digest, [5]);
        let signature = signed.get(&outsider).copied().unwrap_or(any);
        signatures.insert(outsider, signature);
        let refusal = first.confirmations(&signed_by(signatures), &mut uploaded.ledgers[0]);
        assert_eq!(
            refusal.map(|_| ()).unwrap_err(),
            Refusal::Stranger {
                message: MESSAGE,
                member: outsider
            }
        );
    }
}

/// Whoever uploaded and then went has signed whom it masked among, which is all that a holder
/// needs of it.
#[test]
fn a_survivor_that_signed_nothing_or_that_it_masked_among_others() {
    let federation = Federation::new(5);
    let member = MemberIndex(3);
    let told = |change: fn(&mut Confirmations, &Federation)| {
        let mut signed = federation.opened().shared().uploaded(&federation).signed();
        let confirmations = &mut signed.confirmations;
        confirmations.signatures.remove(&MemberIndex(3));
        change(confirmations, &federation);
        let first = signed.members.remove(0);
        let told = first.confirmations(confirmations, &mut signed.ledgers[0]);
        told.map(|_| ())
    };
    assert_eq!(told(|_, _| ()), Ok(()));
    let unclaimed = told(|given, _| {
        given.claims.remove(&MemberIndex(3));
    });
    assert_eq!(unclaimed, Err(Refusal::Unclaimed { member }));
    let changes: [fn(&mut Confirmations, &Federation); 3] = [
        |given, _| {
            let of_another = given.claims[&MemberIndex(2)];
            given.claims.insert(MemberIndex(3), of_another);
        },
        |given, _| {
            let claim = given.claims.get_mut(&MemberIndex(3)).unwrap();
            claim.vector = Digest::of("test", b"another vector");
        },
        |given, federation| {
            let body = UpdateClaim {
                member: MemberIndex(3),
                vector: given.claims[&MemberIndex(3)].vector,
                dealers: Digest::of("test", b"other dealers"),
            };
            let key = &federation.identities[3];
            let claim = Verified::sign(body, key, &federation.open.digest());
            let claim = ClaimedVector::from(claim.unverified());
            given.claims.insert(MemberIndex(3), claim);
        },
    ];
    for change in changes {
        assert_eq!(told(change), Err(Refusal::Dealers { member }));
    }
}

/// Never both shares of one member: of a survivor the seed, of a dropped one the mask key's root.
#[test]
fn of_each_member_one_share_is_revealed() {
    let federation = Federation::new(6);
    let uploaded = federation.opened().shared().uploaded(&federation);
    let mut claims = uploaded.claims.clone();
    let dropped = MemberIndex(5);
    claims.0.remove(&dropped);
    let digest = uploaded.digest(&claims);
    let confirmations = signed_by(federation.confirmations(digest, 0..5));
    let mut ledgers = uploaded.ledgers;
    for (place, member) in uploaded.members.into_iter().take(5).enumerate() {
        let proof = claims.proof(MemberIndex(place as u16));
        let (member, _) = member
            .survivors(claims.list(), &proof, &mut ledgers[place])
            .unwrap();
        let (_, message) = member
            .confirmations(&confirmations, &mut ledgers[place])
            .unwrap();
        let RoundMessage::Reveal { shares, .. } = message else {
            panic!("shares are revealed");
        };
        assert_eq!(shares.len(), 6);
        for (owner, share) in shares {
            let survives = matches!(share, RevealedShare::SelfMask(_));
            assert_eq!(survives, owner != dropped);
        }
    }
}
