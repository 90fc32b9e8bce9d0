//! Updates from their encoding to the decoded mean.

use std::collections::BTreeMap;
use std::convert::Infallible;

use fedlora_protocol::crypto::agreement::{Encapsulation, Suite};
use fedlora_protocol::crypto::keys::Seed;
use fedlora_protocol::crypto::shamir::Share;
use fedlora_protocol::fixed::{
    CohortWeight, Contribution, FixedPoint, LaneBits, LossShift, RingSum, SumParts, WeightClass,
};
use fedlora_protocol::ids::{MemberIndex, MemberSet};
use fedlora_protocol::secagg::{
    Dealt, DealtSecrets, Masker, NeighbourGraph, PairContext, RunningSum, Unmasking, pack,
};
use fedlora_protocol::wire::messages::vector_digest;
use rand::rand_core::{TryCryptoRng, TryRng};
use serde::Deserialize;

use crate::given::{Hex, vectors};

/// Gives out the bytes it was given, once.
struct Given(Vec<u8>);

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("only bytes are asked for")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("only bytes are asked for")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let given: Vec<u8> = self.0.drain(..bytes.len()).collect();
        bytes.copy_from_slice(&given);
        Ok(())
    }
}

impl TryCryptoRng for Given {}

#[derive(Deserialize)]
struct Masking {
    bits: u8,
    clip: f32,
    open_digest: Hex,
    transcript: Hex,
    uploads: Vec<Upload>,
    sum: Vec<u32>,
    decoded: Decoded,
}

#[derive(Deserialize)]
struct Upload {
    delta: Vec<u32>,
    weight_class: u8,
    train_loss: u32,
    eval_loss: u32,
    loss_shift: Hex,
    clipped: bool,
    worse: bool,
    rounding_seed: Hex,
    lanes: Vec<u32>,
    self_mask: Hex,
    self_mask_commitment: Hex,
    mask_root: Hex,
    keys_digest: Hex,
    packed: Hex,
    vector_digest: Hex,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Decoded {
    delta: Vec<u32>,
    train_loss: Option<u32>,
    eval_loss: Option<u32>,
    clipped: Option<u16>,
    votes: Option<u16>,
}

impl Upload {
    fn weight(&self) -> WeightClass {
        WeightClass::try_from(self.weight_class).unwrap()
    }
}

impl Masking {
    fn bits(&self) -> LaneBits {
        LaneBits::try_from(self.bits).unwrap()
    }

    fn format(&self) -> FixedPoint {
        let open = self.open_digest.digest();
        FixedPoint::new(self.bits(), self.clip, self.cohort(), &open).unwrap()
    }

    fn cohort(&self) -> CohortWeight {
        CohortWeight::of(self.uploads.iter().map(Upload::weight))
    }

    /// The seeds that the member at `me` has in common with the others, where all are neighbours.
    fn seeds(&self, me: usize) -> Vec<(MemberIndex, Seed)> {
        let transcript = self.transcript.digest();
        let secret = |place: usize| self.uploads[place].mask_root.pair(Suite::Classical);
        let member = |place: usize| MemberIndex(place as u16);
        let digest = |place: usize| self.uploads[place].keys_digest.digest();
        (0..self.uploads.len())
            .filter(|peer| *peer != me)
            .map(|peer| {
                let (low, high) = (me.min(peer), me.max(peer));
                let pair = PairContext::new(
                    &transcript,
                    (member(low), &digest(low)),
                    (member(high), &digest(high)),
                );
                let seed = pair.initiate_mask(&secret(low), secret(high).public());
                (member(peer), seed.unwrap().1)
            })
            .collect()
    }

    /// The sum without the masks, of all uploads but those of `dropped`.
    fn unmasked(&self, dropped: &[usize]) -> RingSum {
        let mut sum = RunningSum::new(self.bits(), self.sum.len());
        let mut dealt = BTreeMap::new();
        let mut revealed = BTreeMap::new();
        let mut survivors = MemberSet::default();
        for (place, upload) in self.uploads.iter().enumerate() {
            let member = MemberIndex(place as u16);
            let peers = (0..self.uploads.len()).map(|peer| MemberIndex(peer as u16));
            let public = Dealt {
                masking: upload.mask_root.pair(Suite::Classical).public().clone(),
                keys: upload.keys_digest.digest(),
                self_mask: upload.self_mask_commitment.digest(),
                masks: peers.map(|peer| (peer, Encapsulation::default())).collect(),
            };
            dealt.insert(member, public);
            let secret = if dropped.contains(&place) {
                &upload.mask_root
            } else {
                sum.add(&upload.packed.0).unwrap();
                survivors.insert(member);
                &upload.self_mask
            };
            // With a threshold of 1 a share is the secret itself.
            let share = Share::from_bytes(secret.array());
            revealed.insert(member, BTreeMap::from([(member, share)]));
        }
        let unmasking = Unmasking::recover(DealtSecrets {
            suite: Suite::Classical,
            graph: &NeighbourGraph::complete(self.uploads.len()),
            transcript: &self.transcript.digest(),
            threshold: 1,
            dealt: &dealt,
            survivors: &survivors,
            revealed: &revealed,
        });
        sum.unmask(unmasking.unwrap())
    }
}

#[test]
fn encoding_masking_and_packing() {
    let all = vectors::<Vec<Masking>>("masking");
    assert_eq!(all.len(), 3);
    for vector in &all {
        for (place, upload) in vector.uploads.iter().enumerate() {
            let delta: Vec<f32> = upload.delta.iter().copied().map(f32::from_bits).collect();
            let shift = LossShift::random(&mut Given(upload.loss_shift.0.clone()));
            let steps = |bits| shift.steps(f32::from_bits(bits).into()).unwrap();
            let contribution = Contribution {
                train_loss: steps(upload.train_loss),
                eval_loss: steps(upload.eval_loss),
                clipped: upload.clipped,
                worse: upload.worse,
            };
            let mut rounding = Given(upload.rounding_seed.0.clone());
            let encoded = vector
                .format()
                .encode(&delta, upload.weight(), contribution, &mut rounding)
                .unwrap();
            assert_eq!(encoded.lanes(), upload.lanes);

            let own = upload.self_mask.seed();
            assert_eq!(own.commitment(), upload.self_mask_commitment.digest());
            let me = MemberIndex(place as u16);
            let masked = Masker::new(me, own, vector.seeds(place)).mask(encoded);
            assert_eq!(masked.as_bytes(), upload.packed.0);
            assert_eq!(
                vector_digest(masked.as_bytes()),
                upload.vector_digest.digest()
            );

            let mut lanes = vec![0; upload.lanes.len()];
            let count = lanes.len();
            let set = |index: usize, lane| lanes[index] = lane;
            pack::unpack(vector.bits(), &upload.packed.0, count, set).unwrap();
            assert_eq!(pack::pack(vector.bits(), &lanes), upload.packed.0);
        }
    }
}

#[test]
fn unmasking_and_decoding() {
    for vector in vectors::<Vec<Masking>>("masking") {
        let unmasked = vector.unmasked(&[]);
        assert_eq!(unmasked, RingSum(vector.sum.clone()));
        let cohort = vector.cohort();
        let parts = SumParts {
            survivors: cohort.members,
            weight: cohort.total,
        };
        let mean = vector.format().decode(&unmasked, parts).unwrap();
        let decoded = Decoded {
            delta: mean.delta.iter().map(|value| value.to_bits()).collect(),
            train_loss: mean.train_loss.map(f32::to_bits),
            eval_loss: mean.eval_loss.map(f32::to_bits),
            clipped: mean.clipped,
            votes: mean.votes,
        };
        assert_eq!(decoded, vector.decoded);
    }
}

#[test]
fn unmasking_after_a_dropout() {
    for vector in vectors::<Vec<Masking>>("masking") {
        for dropped in 0..vector.uploads.len() {
            let mut plain = vec![0_u32; vector.sum.len()];
            for (place, upload) in vector.uploads.iter().enumerate() {
                for (sum, lane) in plain.iter_mut().zip(&upload.lanes) {
                    let lane = if place == dropped { 0 } else { *lane };
                    *sum = sum.wrapping_add(lane) & vector.bits().mask();
                }
            }
            assert_eq!(vector.unmasked(&[dropped]), RingSum(plain));
        }
    }
}
