//! Sums of masked vectors, from the shares that their members' holders reveal.

use std::collections::BTreeMap;

use super::{Dealt, DealtSecrets, RecoveryError, Unmasking};
use crate::crypto::agreement::{AgreementRoot, AgreementSecret, Encapsulation, Suite};
use crate::crypto::keys::Seed;
use crate::crypto::os_rng;
use crate::crypto::shamir::{self, ShamirError, Share};
use crate::fixed::{EncodedUpdate, LaneBits};
use crate::ids::{MemberIndex, MemberSet};
use crate::secagg::{Masker, NeighbourGraph, PairContext, RunningSum};
use fedlora_common::digest::Digest;

const BITS: LaneBits = LaneBits::B24;
const LANES: u32 = 33;
const THRESHOLD: usize = 4;

/// Members that dealt their secrets; some of them never uploaded.
struct Round {
    suite: Suite,
    graph: NeighbourGraph,
    transcript: Digest,
    dealt: BTreeMap<MemberIndex, Dealt>,
    survivors: MemberSet,
    revealed: BTreeMap<MemberIndex, BTreeMap<MemberIndex, Share>>,
    masked: RunningSum,
    plain: Vec<u32>,
}

/// Masks with every neighbour, from the one that encapsulates.
fn agree(
    dealt: &mut BTreeMap<MemberIndex, Dealt>,
    secrets: &BTreeMap<MemberIndex, AgreementSecret>,
    graph: &NeighbourGraph,
    transcript: &Digest,
) -> BTreeMap<MemberIndex, Vec<(MemberIndex, Seed)>> {
    let mut seeds: BTreeMap<MemberIndex, Vec<_>> = BTreeMap::new();
    for (&me, secret) in secrets {
        for peer in graph.neighbours(me) {
            let keys = |member: MemberIndex| &dealt[&member].keys;
            let pair = PairContext::new(transcript, (me, keys(me)), (peer, keys(peer)));
            let mut sent = Encapsulation::default();
            if pair.initiates() {
                let (mask, seed) = pair.initiate_mask(secret, &dealt[&peer].masking).unwrap();
                seeds.entry(me).or_default().push((peer, seed.clone()));
                seeds.entry(peer).or_default().push((me, seed));
                sent = mask;
            }
            dealt.get_mut(&me).unwrap().masks.insert(peer, sent);
        }
    }
    seeds
}

fn round(suite: Suite, graph: NeighbourGraph, members: u16, dropped: &[u16]) -> Round {
    let mut rng = os_rng();
    let transcript = Digest::of("test", b"transcript");
    let all: MemberSet = (0..members).map(MemberIndex).collect();
    let secrets: BTreeMap<_, _> = all
        .iter()
        .map(|me| (me, AgreementRoot::random(&mut rng).key_pair(suite)))
        .collect();
    let own: BTreeMap<_, _> = all.iter().map(|me| (me, Seed::random(&mut rng))).collect();
    let mut dealt: BTreeMap<_, _> = all
        .iter()
        .map(|me| {
            let dealt = Dealt {
                masking: secrets[&me].public().clone(),
                keys: Digest::of("test keys", &me.0.to_le_bytes()),
                self_mask: own[&me].commitment(),
                masks: BTreeMap::new(),
            };
            (me, dealt)
        })
        .collect();
    let mut seeds = agree(&mut dealt, &secrets, &graph, &transcript);
    let survivors: MemberSet = all.iter().filter(|me| !dropped.contains(&me.0)).collect();
    let mut made = Round {
        suite,
        transcript,
        dealt,
        revealed: BTreeMap::new(),
        masked: RunningSum::new(BITS, LANES as usize),
        plain: vec![0; LANES as usize],
        survivors,
        graph,
    };
    for me in all.iter() {
        let shared = if made.survivors.contains(me) {
            let lanes: Vec<u32> = (0..LANES).map(|k| 7 * k + 13 * u32::from(me.0)).collect();
            for (sum, lane) in made.plain.iter_mut().zip(&lanes) {
                *sum += lane;
            }
            let masker = Masker::new(me, own[&me].clone(), seeds.remove(&me).unwrap());
            let masked = masker.mask(EncodedUpdate::forge(BITS, lanes));
            made.masked.add(masked.as_bytes()).unwrap();
            *own[&me].expose()
        } else {
            *secrets[&me].root().expose()
        };
        made.share(me, &shared);
    }
    made
}

impl Round {
    /// All holders that survive reveal their shares of `secret`.
    fn share(&mut self, owner: MemberIndex, secret: &[u8; 32]) {
        let mut holders = self.graph.neighbours(owner);
        holders.push(owner);
        let shares = shamir::split(secret, THRESHOLD, holders.len(), &mut os_rng()).unwrap();
        let revealed = holders.into_iter().filter_map(|holder| {
            let place = self.graph.holder_place(owner, holder).unwrap();
            let survives = self.survivors.contains(holder);
            survives.then(|| (holder, shares[place].clone()))
        });
        let revealed = revealed.collect();
        self.revealed.insert(owner, revealed);
    }

    fn recover(&self) -> Result<Unmasking, RecoveryError> {
        Unmasking::recover(DealtSecrets {
            suite: self.suite,
            graph: &self.graph,
            transcript: &self.transcript,
            threshold: THRESHOLD,
            dealt: &self.dealt,
            survivors: &self.survivors,
            revealed: &self.revealed,
        })
    }

    #[track_caller]
    fn assert_exact(self) {
        let unmasking = self.recover().unwrap();
        assert_eq!(self.masked.unmask(unmasking).0, self.plain);
    }
}

fn six(suite: Suite, dropped: &[u16]) -> Round {
    round(suite, NeighbourGraph::complete(6), 6, dropped)
}

const ZERO: MemberIndex = MemberIndex(0);
const TWO: MemberIndex = MemberIndex(2);
const FOUR: MemberIndex = MemberIndex(4);

#[test]
fn the_unmasked_sum_is_exact_with_and_without_dropouts() {
    for suite in [Suite::Classical, Suite::Hybrid] {
        for dropped in [&[][..], &[0], &[5], &[2, 4]] {
            six(suite, dropped).assert_exact();
        }
        let graph = NeighbourGraph::regular(70, 8, &Digest::of("test", b"beacon")).unwrap();
        round(suite, graph, 70, &[0, 17, 18, 69]).assert_exact();
    }
}

#[test]
fn too_few_shares_name_their_owner() {
    for owner in [ZERO, TWO] {
        let mut round = six(Suite::Classical, &[2]);
        let shares = round.revealed.get_mut(&owner).unwrap();
        while shares.len() >= THRESHOLD {
            shares.pop_last();
        }
        let Err(RecoveryError::Shares { member, source }) = round.recover() else {
            panic!("three shares recover nothing");
        };
        assert_eq!(member, owner);
        assert!(
            matches!(source, ShamirError::TooFewShares { .. }),
            "{source}"
        );
        round.revealed.remove(&owner);
        let refused = round.recover().map(|_| ()).unwrap_err();
        assert!(matches!(refused, RecoveryError::Shares { member, .. } if member == owner));
    }
}

#[test]
fn shares_of_another_secret_name_their_dealer() {
    for owner in [ZERO, TWO] {
        let mut round = six(Suite::Hybrid, &[2]);
        round.share(owner, &[7; 32]);
        let refused = round.recover().map(|_| ()).unwrap_err();
        assert_eq!(refused, RecoveryError::Deal { member: owner });
    }
}

/// What a member that dropped out encapsulated for a survivor must be what its root gives: of
/// anything else the survivor has a mask that nobody can recover.
#[test]
fn an_encapsulation_that_its_root_does_not_give_names_its_sender() {
    let changed = |dropped: &[u16]| {
        let mut round = six(Suite::Hybrid, dropped);
        let masks = &mut round.dealt.get_mut(&TWO).unwrap().masks;
        let of_another = masks[&MemberIndex(5)].clone();
        masks.insert(FOUR, of_another);
        round
    };
    let refused = changed(&[2]).recover().map(|_| ()).unwrap_err();
    let (member, peer) = (TWO, FOUR);
    assert_eq!(refused, RecoveryError::Encapsulation { member, peer });
    // Masks between survivors cancel, and those between dropouts are in nobody's vector.
    changed(&[]).assert_exact();
    changed(&[2, 4]).assert_exact();
    let mut round = six(Suite::Hybrid, &[2]);
    round.dealt.get_mut(&TWO).unwrap().masks.remove(&FOUR);
    let refused = round.recover().map(|_| ()).unwrap_err();
    assert_eq!(refused, RecoveryError::Encapsulation { member, peer });
}

#[test]
fn a_survivor_that_dealt_nothing_is_named() {
    let mut round = six(Suite::Classical, &[]);
    let member = MemberIndex(6);
    round.survivors.insert(member);
    let refused = round.recover().map(|_| ()).unwrap_err();
    assert_eq!(refused, RecoveryError::Unknown { member });
}

#[test]
fn masks_are_not_shown() {
    let unmasking = six(Suite::Classical, &[1]).recover().unwrap();
    // Five self-masks, and five pair masks with the one that dropped out.
    assert_eq!(format!("{unmasking:?}"), "Unmasking(10 masks)");
}
