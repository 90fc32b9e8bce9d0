//! One member's update without its masks: what somebody can do who has both of its secrets.

use std::collections::BTreeMap;

use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::agreement::{AgreementRoot, Suite};
use fedlora_protocol::crypto::keys::Seed;
use fedlora_protocol::crypto::prg::Prg;
use fedlora_protocol::crypto::shamir::{self, Coordinate, Share};
use fedlora_protocol::fixed::{LaneBits, RingSum};
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::secagg::{Dealt, PairContext, pack};

/// A masked update and what is public around it, where all are neighbours of all.
pub(super) struct Bare<'a> {
    pub(super) member: MemberIndex,
    pub(super) packed: &'a [u8],
    pub(super) suite: Suite,
    pub(super) dealt: &'a BTreeMap<MemberIndex, Dealt>,
    pub(super) transcript: &'a Digest,
    pub(super) threshold: usize,
    pub(super) bits: LaneBits,
}

impl Bare<'_> {
    /// The lanes, where the shares recover both secrets of the member.
    pub(super) fn strip(
        &self,
        seed: &BTreeMap<MemberIndex, Share>,
        root: &BTreeMap<MemberIndex, Share>,
    ) -> Option<RingSum> {
        let own = self.dealt.get(&self.member)?;
        let seed = Seed::from_bytes(self.recover(seed)?);
        let secret = AgreementRoot::from_bytes(self.recover(root)?).key_pair(self.suite);
        if !seed.opens(&own.self_mask) || *secret.public() != own.masking {
            return None;
        }
        let mut lanes = self.lanes()?;
        self.remove(&mut lanes, &seed, true);
        for (&peer, dealt) in self.dealt {
            if peer == self.member {
                continue;
            }
            let me = (self.member, &own.keys);
            let pair = PairContext::new(self.transcript, me, (peer, &dealt.keys));
            let seed = if pair.initiates() {
                pair.initiate_mask(&secret, &dealt.masking).ok()?.1
            } else {
                let to_me = dealt.masks.get(&self.member)?;
                pair.respond_mask(&secret, &dealt.masking, to_me).ok()?
            };
            // The lower place has added the mask, the higher has subtracted it.
            self.remove(&mut lanes, &seed, self.member < peer);
        }
        Some(RingSum(lanes))
    }

    fn recover(&self, shares: &BTreeMap<MemberIndex, Share>) -> Option<[u8; 32]> {
        let by_coordinate = shares.iter().map(|(holder, share)| {
            let coordinate = Coordinate::of_place(usize::from(holder.0)).ok()?;
            Some((coordinate, share.clone()))
        });
        let by_coordinate = by_coordinate.collect::<Option<_>>()?;
        Some(*shamir::recover(&by_coordinate, self.threshold).ok()?)
    }

    fn lanes(&self) -> Option<Vec<u32>> {
        let bits = self.bits.bits() as usize;
        let mut lanes = vec![0; self.packed.len() * 8 / bits];
        let count = lanes.len();
        pack::unpack(self.bits, self.packed, count, |index, lane| {
            lanes[index] = lane;
        })
        .ok()?;
        Some(lanes)
    }

    fn remove(&self, lanes: &mut [u32], seed: &Seed, was_added: bool) {
        let mask = self.bits.mask();
        Prg::new(seed).for_each(0, lanes, |lane, word| {
            *lane = if was_added {
                lane.wrapping_sub(word) & mask
            } else {
                lane.wrapping_add(word) & mask
            };
        });
    }
}
