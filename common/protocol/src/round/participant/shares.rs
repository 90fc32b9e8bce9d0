//! M2 of the other members: the shares that this member holds for them, and the masker.

use std::collections::BTreeMap;

use crate::crypto::keys::{AgreementSecret, Seed};
use crate::crypto::shamir::Share;
use crate::fixed::{CohortWeight, FixedPoint, RoundEncoding};
use crate::ids::MemberIndex;
use crate::secagg::Masker;
use crate::wire::messages::{Keys, SealedShares};
use fedlora_common::digest::Digest;

use super::context::OpenRound;
use super::held::HeldShares;
use super::refusal::Refusal;
use super::sealing::{seal_binding, sealing_key};
use super::update::ReadyToMask;

const MESSAGE: &str = "shares";

/// This member has sent its sealed shares and waits for the others'.
#[derive(Debug)]
pub struct ExpectPeerShares {
    pub(super) round: OpenRound,
    pub(super) peers: BTreeMap<MemberIndex, Keys>,
    pub(super) transcript: Digest,
    pub(super) sealing: AgreementSecret,
    pub(super) masking: AgreementSecret,
    pub(super) self_mask: Seed,
    pub(super) held: BTreeMap<MemberIndex, HeldShares>,
}

impl ExpectPeerShares {
    /// Opens the shares that the others sealed for this member, and makes the masker.
    ///
    /// Shares that do not open are left out: one bad sender must not put an honest member out
    /// of the round, and a share that is not held is never revealed.
    ///
    /// # Errors
    /// [`Refusal`] where a sender sent no keys before, its key is weak, or too few shared.
    pub fn peer_shares(
        mut self,
        shares: BTreeMap<MemberIndex, SealedShares>,
    ) -> Result<ReadyToMask, Refusal> {
        let me = self.round.me();
        for (&sender, sealed) in &shares {
            let keys = match self.peers.get(&sender) {
                Some(keys) if sender != me => keys,
                _ => {
                    return Err(Refusal::Stranger {
                        message: MESSAGE,
                        member: sender,
                    });
                }
            };
            let key = sealing_key(&self.sealing, &keys.sealing, (sender, me), &self.transcript)
                .map_err(|_| Refusal::WeakKey { member: sender })?;
            let bound = seal_binding(&self.transcript, sender, me);
            let opened = key
                .open(&sealed.0, bound.as_bytes())
                .ok()
                .and_then(|plain| {
                    let plain = <&[u8; 64]>::try_from(plain.as_slice()).ok()?;
                    let (seed, secret) = plain.split_at(32);
                    Some(HeldShares::new(
                        Share::from_bytes(seed.try_into().ok()?),
                        Share::from_bytes(secret.try_into().ok()?),
                    ))
                });
            if let Some(opened) = opened {
                self.held.insert(sender, opened);
            }
        }
        self.round.enough(MESSAGE, shares.len() + 1)?;

        let sharing: Vec<MemberIndex> = shares.keys().copied().collect();
        let weights: BTreeMap<_, _> = self
            .peers
            .iter()
            .map(|(member, keys)| (*member, keys.weight))
            .collect();
        let open = &self.round.open;
        let encoding = RoundEncoding {
            format: FixedPoint::new(
                open.bits,
                open.clip,
                CohortWeight::of(weights.values().copied()),
                &self.round.digest,
            )?,
            weight: self.round.context.weight,
        };
        let masker = Masker::new(
            me,
            self.self_mask.clone(),
            &self.masking,
            sharing
                .iter()
                .map(|sender| (*sender, self.peers[sender].masking)),
            &self.transcript,
        )
        .map_err(|weak| Refusal::WeakKey { member: weak.peer })?;
        Ok(ReadyToMask {
            round: self.round,
            transcript: self.transcript,
            sharing: sharing.into_iter().chain([me]).collect(),
            held: self.held,
            weights,
            encoding,
            masker,
        })
    }
}
