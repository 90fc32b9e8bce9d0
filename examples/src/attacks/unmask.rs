//! One member's update without its masks: what somebody can do who has both of its secrets.

use std::collections::BTreeMap;

use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_protocol::crypto::keys::{AgreementSecret, Seed};
use fedlora_protocol::crypto::prg::Prg;
use fedlora_protocol::crypto::shamir;
use fedlora_protocol::fixed::{LaneBits, RingSum};
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::secagg::{Committed, Revealed, pack};

/// A masked update and what is public around it.
pub(super) struct Bare<'a> {
    pub(super) member: MemberIndex,
    pub(super) packed: &'a [u8],
    pub(super) committed: &'a BTreeMap<MemberIndex, Committed>,
    pub(super) transcript: &'a Digest,
    pub(super) threshold: usize,
    pub(super) bits: LaneBits,
}

impl Bare<'_> {
    /// The lanes, where the shares recover both secrets of the member.
    pub(super) fn strip(&self, seed: &Revealed, secret: &Revealed) -> Option<RingSum> {
        let own = self.committed.get(&self.member)?;
        let seed = Seed::from_bytes(*shamir::recover(seed, self.threshold).ok()?);
        let secret = AgreementSecret::from_bytes(*shamir::recover(secret, self.threshold).ok()?);
        if !seed.opens(&own.self_mask) || secret.public() != own.mask_key {
            return None;
        }
        let mut lanes = self.lanes()?;
        self.remove(&mut lanes, &seed, true);
        for (&peer, committed) in self.committed {
            if peer == self.member {
                continue;
            }
            let binding = DigestWriter::new("fedlora 1 pair mask binding")
                .digest(self.transcript)
                .number(self.member.min(peer).0.into())
                .number(self.member.max(peer).0.into())
                .finish();
            let pair = secret
                .agree(&committed.mask_key, "fedlora 1 pair mask seed", &binding)
                .ok()?;
            // The lower place has added the mask, the higher has subtracted it.
            self.remove(&mut lanes, &pair, self.member < peer);
        }
        Some(RingSum(lanes))
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
