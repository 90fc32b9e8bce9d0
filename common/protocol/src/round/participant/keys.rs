//! M1 of all members, answered by M2: this member's secrets, shared and sealed.

use std::collections::{BTreeMap, BTreeSet};

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::context::OpenRound;
use super::held::HeldShares;
use super::refusal::Refusal;
use super::sealing::{seal_binding, sealing_key};
use super::shares::ExpectPeerShares;
use crate::crypto::keys::{AgreementSecret, Seed};
use crate::crypto::shamir;
use crate::ids::MemberIndex;
use crate::wire::Unverified;
use crate::wire::messages::{Keys, SealedShares, keys_digest};

const MESSAGE: &str = "keys";

/// This member has sent its keys and waits for the others'.
#[derive(Debug)]
pub struct ExpectPeerKeys {
    pub(super) round: OpenRound,
    pub(super) own: Keys,
    pub(super) sealing: AgreementSecret,
    pub(super) masking: AgreementSecret,
    pub(super) self_mask: Seed,
}

impl ExpectPeerKeys {
    /// Checks all members' keys and seals this member's shares to each of the others.
    ///
    /// # Errors
    /// [`Refusal`] where a signature does not verify, a key repeats or is weak, this
    /// member's own keys were swapped, or the members are too few.
    pub fn peer_keys(
        self,
        keys: Vec<Unverified<Keys>>,
        rng: &mut impl CryptoRng,
    ) -> Result<(ExpectPeerShares, BTreeMap<MemberIndex, SealedShares>), Refusal> {
        let peers = self.check(keys)?;
        let members = self.round.context.roster.len();
        let transcript = keys_digest(&self.round.digest, peers.values());

        let split = |secret: &[u8; 32], rng: &mut _| {
            shamir::split(secret, self.round.threshold, members, rng)
        };
        let seed_shares = split(self.self_mask.expose(), rng)?;
        let secret_shares = split(&self.masking.expose(), rng)?;

        let me = self.round.me();
        let mut held = BTreeMap::new();
        let mut sealed = BTreeMap::new();
        for (&peer, keys) in &peers {
            let place = usize::from(peer.0);
            let (seed, secret) = (&seed_shares[place], &secret_shares[place]);
            if peer == me {
                held.insert(me, HeldShares::new(seed.clone(), secret.clone()));
                continue;
            }
            let key = sealing_key(&self.sealing, &keys.sealing, (me, peer), &transcript)
                .map_err(|_| Refusal::WeakKey { member: peer })?;
            let mut message = Zeroizing::new([0; 64]);
            message[..32].copy_from_slice(seed.expose());
            message[32..].copy_from_slice(secret.expose());
            let bound = seal_binding(&transcript, me, peer);
            sealed.insert(
                peer,
                SealedShares(key.seal(message.as_slice(), bound.as_bytes())),
            );
        }
        Ok((
            ExpectPeerShares {
                round: self.round,
                peers,
                transcript,
                sealing: self.sealing,
                masking: self.masking,
                self_mask: self.self_mask,
                held,
            },
            sealed,
        ))
    }

    fn check(&self, keys: Vec<Unverified<Keys>>) -> Result<BTreeMap<MemberIndex, Keys>, Refusal> {
        let roster = &self.round.context.roster;
        let mut peers = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for unverified in keys {
            let member = unverified.claimed().member;
            let entry = roster.get(member).ok_or(Refusal::Stranger {
                message: MESSAGE,
                member,
            })?;
            let verified = unverified
                .verify(&entry.identity, &self.round.digest)
                .map_err(|_| Refusal::Signature {
                    message: MESSAGE,
                    member,
                })?
                .into_body();
            if peers.insert(member, verified).is_some() {
                return Err(Refusal::Repeated {
                    message: MESSAGE,
                    member,
                });
            }
            if verified.weight > self.round.context.highest_class {
                return Err(Refusal::Weight {
                    member,
                    got: verified.weight.class(),
                    most: self.round.context.highest_class.class(),
                });
            }
            if verified.revealed >= self.round.open.round {
                return Err(Refusal::RevealedBefore {
                    member,
                    revealed: verified.revealed,
                    round: self.round.open.round,
                });
            }
            if !verified.sealing.is_sound() || !verified.masking.is_sound() {
                return Err(Refusal::WeakKey { member });
            }
            if !seen.insert(verified.sealing) || !seen.insert(verified.masking) {
                return Err(Refusal::RepeatedKey { member });
            }
        }
        if peers.get(&self.round.me()) != Some(&self.own) {
            return Err(Refusal::OwnKeys);
        }
        self.round.enough(MESSAGE, peers.len())?;
        Ok(peers)
    }
}
