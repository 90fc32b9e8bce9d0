//! Every field of what is signed or bound to is in its digest.

use crate::crypto::agreement::{AgreementRoot, Encapsulation, Suite};
use crate::crypto::os_rng;
use crate::crypto::shamir::Share;
use crate::fixed::WeightClass;
use crate::ids::{MemberIndex, MemberSet, RoundNumber};
use crate::round::harness::Federation;
use crate::wire::Signable;
use crate::wire::messages::{
    Cohort, Commitments, Deal, DealtShares, HeldShares, Keys, OpenedCommitment, Reveal,
    RevealedShare, ShareCommitments, SurvivorList, commitment_to, keys_context,
};
use fedlora_common::digest::Digest;

const CONTEXT: Digest = Digest::from_bytes([1; 32]);
const OTHER: Digest = Digest::from_bytes([2; 32]);
const TWO: MemberIndex = MemberIndex(2);
const NINE: MemberIndex = MemberIndex(9);

/// All these changes of `value` give different digests, and so does another context.
#[track_caller]
fn all_differ<T: Clone>(value: &T, digest: impl Fn(&T, &Digest) -> Digest, changes: &[fn(&mut T)]) {
    let mut digests = vec![digest(value, &CONTEXT)];
    assert_eq!(digests[0], digest(value, &CONTEXT));
    digests.push(digest(value, &OTHER));
    assert_ne!(digests[0], digests[1]);
    for (place, change) in changes.iter().enumerate() {
        let mut changed = value.clone();
        change(&mut changed);
        let digest = digest(&changed, &CONTEXT);
        assert!(!digests.contains(&digest), "change {place}");
        digests.push(digest);
    }
}

/// Likewise of what is signed.
#[track_caller]
fn all_differ_signed<T: Clone + Signable>(value: &T, changes: &[fn(&mut T)]) {
    all_differ(value, T::signed_digest, changes);
}

/// A deal of the third of five members.
fn deal() -> Deal {
    let federation = Federation::new(5);
    federation.opened().shared().deals[2].claimed().clone()
}

/// Commitments to shares of these bytes.
fn commitments(self_mask: u8, mask_root: u8) -> ShareCommitments {
    let share = |byte| Share::from_bytes([byte; 32]);
    ShareCommitments::new(&CONTEXT, (TWO, NINE), &share(self_mask), &share(mask_root))
}

fn dealt(deal: &mut Deal) -> &mut DealtShares {
    deal.shares.get_mut(&MemberIndex(4)).unwrap()
}

#[test]
fn of_keys() {
    let keys = Federation::new(3).opened().keys[1].claimed().clone();
    let fresh = || {
        let root = AgreementRoot::random(&mut os_rng());
        root.key_pair(Suite::Hybrid).public().clone()
    };
    all_differ_signed::<Keys>(
        &keys,
        &[
            |keys| keys.member = NINE,
            |keys| std::mem::swap(&mut keys.sealing, &mut keys.masking),
            |keys| keys.sealing = keys.masking.clone(),
            |keys| keys.masking = keys.sealing.clone(),
            |keys| keys.weight = WeightClass::try_from(5).unwrap(),
            |keys| keys.revealed = RoundNumber(7),
        ],
    );
    let digest = keys.signed_digest(&CONTEXT);
    let (sealing, masking) = (fresh(), fresh());
    let changed = Keys {
        sealing,
        ..keys.clone()
    };
    assert_ne!(changed.signed_digest(&CONTEXT), digest);
    let changed = Keys { masking, ..keys };
    assert_ne!(changed.signed_digest(&CONTEXT), digest);
}

#[test]
fn of_the_context_of_keys() {
    let contexts = [
        keys_context(&CONTEXT, None),
        keys_context(&OTHER, None),
        keys_context(&CONTEXT, Some(&CONTEXT)),
        keys_context(&CONTEXT, Some(&OTHER)),
        keys_context(&OTHER, Some(&CONTEXT)),
    ];
    let different: std::collections::BTreeSet<_> =
        contexts.iter().map(|context| *context.as_bytes()).collect();
    assert_eq!(different.len(), contexts.len());
}

#[test]
fn of_a_commitment_to_the_beacon() {
    all_differ(
        &(TWO, [3; 16]),
        |(member, nonce), open| commitment_to(open, *member, nonce),
        &[|value| value.0 = NINE, |value| value.1[15] ^= 1],
    );
}

#[test]
fn of_all_commitments_and_of_the_beacon() {
    let all = Commitments([(TWO, CONTEXT), (NINE, OTHER)].into());
    all_differ::<Commitments>(
        &all,
        |all, open| all.digest(open),
        &[
            |all| {
                all.0.remove(&NINE);
            },
            |all| {
                all.0.insert(NINE, CONTEXT);
            },
            |all| {
                all.0.insert(MemberIndex(3), OTHER);
            },
            |all| {
                let commitment = all.0.remove(&TWO).unwrap();
                all.0.insert(MemberIndex(1), commitment);
            },
        ],
    );
    let federation = Federation::new(70);
    let opened = federation.opened();
    let openings = opened.openings;
    all_differ(
        &(opened.commitments.unwrap(), openings),
        |(all, openings), open| all.beacon(open, openings),
        &[
            |value| {
                value.0.0.insert(TWO, OTHER);
            },
            |value| value.1.get_mut(&TWO).unwrap().nonce[0] ^= 1,
            |value| value.1.get_mut(&MemberIndex(0)).unwrap().nonce[15] ^= 1,
        ],
    );
}

#[test]
fn of_an_opened_commitment() {
    let opened = OpenedCommitment {
        member: TWO,
        commitments: CONTEXT,
        nonce: [3; 16],
    };
    all_differ_signed(
        &opened,
        &[
            |opened| opened.member = NINE,
            |opened| opened.commitments = OTHER,
            |opened| opened.nonce[0] ^= 1,
            |opened| opened.nonce[15] ^= 1,
        ],
    );
}

#[test]
fn of_a_cohorts_transcript() {
    let class = |class| WeightClass::try_from(class).unwrap();
    let cohort = Cohort {
        members: [1, 2, 5].map(MemberIndex).into_iter().collect(),
        classes: [0, 1, 2].map(class).into(),
    };
    type Bound = (Cohort, Option<Digest>);
    let set = |members: &[u16]| {
        members
            .iter()
            .copied()
            .map(MemberIndex)
            .collect::<MemberSet>()
    };
    all_differ::<Bound>(
        &(cohort.clone(), None),
        |(cohort, beacon), context| cohort.transcript(context, beacon.as_ref()),
        &[
            |value| value.0.members = [1, 2, 6].map(MemberIndex).into_iter().collect(),
            |value| value.0.members = [1, 2].map(MemberIndex).into_iter().collect(),
            |value| value.0.members = [1, 2, 5, 6].map(MemberIndex).into_iter().collect(),
            |value| value.0.classes.clear(),
            |value| value.0.classes.reverse(),
            |value| {
                value.0.classes.pop();
            },
            |value| value.0.classes.push(WeightClass::ONE),
            |value| value.1 = Some(CONTEXT),
            |value| value.1 = Some(OTHER),
        ],
    );
    // The same weights have one form only, and a class of one another.
    let weights = cohort.weights().unwrap();
    assert_eq!(Cohort::new(&weights), cohort);
    assert_eq!(cohort.members, set(&[1, 2, 5]));
}

#[test]
fn of_commitments_to_shares() {
    let commitments = commitments(1, 2);
    let opens = |transcript, pair, kind, byte| {
        commitments.open_to(transcript, pair, kind, &Share::from_bytes([byte; 32]))
    };
    use crate::wire::messages::ShareKind::{MaskRoot, SelfMask};
    assert!(opens(&CONTEXT, (TWO, NINE), SelfMask, 1));
    assert!(opens(&CONTEXT, (TWO, NINE), MaskRoot, 2));
    assert!(!opens(&CONTEXT, (TWO, NINE), SelfMask, 2));
    assert!(!opens(&CONTEXT, (TWO, NINE), MaskRoot, 1));
    for (kind, byte) in [(SelfMask, 1), (MaskRoot, 2)] {
        assert!(!opens(&OTHER, (TWO, NINE), kind, byte));
        assert!(!opens(&CONTEXT, (TWO, TWO), kind, byte));
        assert!(!opens(&CONTEXT, (NINE, NINE), kind, byte));
        assert!(!opens(&CONTEXT, (NINE, TWO), kind, byte));
    }
    // One share twice has two commitments, so that equal shares do not show.
    let twice = self::commitments(1, 1);
    let share = Share::from_bytes([1; 32]);
    assert!(twice.open_to(&CONTEXT, (TWO, NINE), SelfMask, &share));
    assert_ne!(twice, self::commitments(1, 2));
}

#[test]
fn of_what_travels_beside_sealed_shares() {
    let mask = dealt(&mut deal()).mask.clone();
    assert!(!mask.is_empty());
    let other = dealt(&mut deal()).seal.clone();
    let digests = [
        commitments(1, 2).beside(&mask),
        commitments(1, 3).beside(&mask),
        commitments(3, 2).beside(&mask),
        commitments(1, 2).beside(&other),
        commitments(1, 2).beside(&Encapsulation::default()),
    ];
    let different: std::collections::BTreeSet<_> =
        digests.iter().map(|digest| *digest.as_bytes()).collect();
    assert_eq!(different.len(), digests.len());
}

#[test]
fn of_a_deal() {
    all_differ_signed::<Deal>(
        &deal(),
        &[
            |deal| deal.member = NINE,
            |deal| deal.self_mask = OTHER,
            |deal| deal.own = commitments(1, 2),
            |deal| deal.own = commitments(1, 3),
            |deal| deal.own = commitments(3, 2),
            |deal| {
                deal.shares.pop_last();
            },
            |deal| {
                let (_, dealt) = deal.shares.pop_last().unwrap();
                deal.shares.insert(NINE, dealt);
            },
            |deal| dealt(deal).sealed.0[0][0] ^= 1,
            |deal| dealt(deal).sealed.0[4][15] ^= 1,
            |deal| dealt(deal).commitments = commitments(1, 2),
            |deal| dealt(deal).commitments = commitments(1, 3),
            |deal| dealt(deal).commitments = commitments(3, 2),
            |deal| dealt(deal).seal = Encapsulation::default(),
            |deal| dealt(deal).mask = Encapsulation::default(),
            |deal| {
                let DealtShares { seal, mask, .. } = dealt(deal);
                std::mem::swap(seal, mask);
            },
        ],
    );
}

#[test]
fn of_held_shares() {
    let held = HeldShares {
        member: TWO,
        held: [(NINE, commitments(1, 2)), (TWO, commitments(4, 5))].into(),
    };
    all_differ_signed::<HeldShares>(
        &held,
        &[
            |held| held.member = NINE,
            |held| {
                held.held.remove(&NINE);
            },
            |held| held.held.clear(),
            |held| {
                held.held.insert(NINE, commitments(1, 3));
            },
            |held| {
                held.held.insert(NINE, commitments(3, 2));
            },
            |held| {
                held.held.insert(MemberIndex(3), commitments(1, 2));
            },
            |held| {
                let commitments = held.held.remove(&NINE).unwrap();
                held.held.insert(MemberIndex(8), commitments);
            },
        ],
    );
}

#[test]
fn of_a_reveal() {
    let reveal = Reveal {
        member: TWO,
        list: CONTEXT,
        shares: [
            (TWO, RevealedShare::SelfMask([4; 32])),
            (NINE, RevealedShare::MaskRoot([5; 32])),
        ]
        .into(),
    };
    all_differ_signed::<Reveal>(
        &reveal,
        &[
            |reveal| reveal.member = NINE,
            |reveal| reveal.list = OTHER,
            |reveal| {
                reveal.shares.remove(&NINE);
            },
            |reveal| reveal.shares.clear(),
            |reveal| {
                let share = RevealedShare::SelfMask([5; 32]);
                reveal.shares.insert(NINE, share);
            },
            |reveal| {
                let share = RevealedShare::MaskRoot([6; 32]);
                reveal.shares.insert(NINE, share);
            },
            |reveal| {
                let share = reveal.shares.remove(&NINE).unwrap();
                reveal.shares.insert(MemberIndex(8), share);
            },
            |reveal| {
                let share = RevealedShare::MaskRoot([5; 32]);
                reveal.shares.insert(MemberIndex(3), share);
            },
        ],
    );
}

#[test]
fn of_a_survivor_list() {
    let set = |members: [u16; 2]| members.map(MemberIndex).into_iter().collect::<MemberSet>();
    let list = SurvivorList {
        members: set([2, 9]),
        vectors: CONTEXT,
    };
    all_differ::<(SurvivorList, MemberSet)>(
        &(list, set([2, 9])),
        |(list, dealers), transcript| list.digest(transcript, dealers),
        &[
            |value| value.0.members = [2, 8].map(MemberIndex).into_iter().collect(),
            |value| value.0.vectors = OTHER,
            |value| value.1 = [2, 8].map(MemberIndex).into_iter().collect(),
            |value| value.1 = [2, 9, 10].map(MemberIndex).into_iter().collect(),
        ],
    );
}
