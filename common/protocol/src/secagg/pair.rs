//! What two neighbours have in common: the seed of their pair mask, and the keys that they seal
//! shares to each other with.

use zeroize::Zeroizing;

use crate::crypto::agreement::{AgreementError, AgreementPublic, AgreementSecret, Encapsulation};
use crate::crypto::keys::Seed;
use crate::crypto::seal::OneTimeKey;
use crate::ids::MemberIndex;
use fedlora_common::digest::{Digest, DigestWriter};

const MASK: &str = "fedlora 2 pair mask seed";
const SEAL: &str = "fedlora 2 share sealing key";
const SEAL_WITH_MASK: &str = "fedlora 2 share sealing key with mask seed";

/// One side of a pair of neighbours. The lower of the two encapsulates for the pair's mask; each
/// sender for its own seal.
#[derive(Debug, Clone, Copy)]
pub struct PairContext {
    me: MemberIndex,
    peer: MemberIndex,
    binding: Digest,
}

impl PairContext {
    /// The side of `me` towards `peer`, each with the signed digest of its keys. The transcript
    /// holds the global adapter's digest: members that were shown different models get masks that
    /// do not cancel.
    pub fn new(
        transcript: &Digest,
        me: (MemberIndex, &Digest),
        peer: (MemberIndex, &Digest),
    ) -> Self {
        let (low, high) = if me.0 < peer.0 {
            (me, peer)
        } else {
            (peer, me)
        };
        Self {
            me: me.0,
            peer: peer.0,
            binding: DigestWriter::new("fedlora 2 pair")
                .digest(transcript)
                .digest(low.1)
                .digest(high.1)
                .finish(),
        }
    }

    /// Whether `me` encapsulates for the pair's mask.
    pub fn initiates(&self) -> bool {
        self.me < self.peer
    }

    /// The pair mask's seed, at the lower of the two, and what the higher needs to get it.
    ///
    /// # Errors
    /// [`AgreementError`] for a key that is unsound, or of another suite.
    pub fn initiate_mask(
        &self,
        secret: &AgreementSecret,
        theirs: &AgreementPublic,
    ) -> Result<(Encapsulation, Seed), AgreementError> {
        secret.initiate(theirs, MASK, &self.binding)
    }

    /// The pair mask's seed, at the higher of the two.
    ///
    /// # Errors
    /// As [`PairContext::initiate_mask`], or an encapsulation of another suite.
    pub fn respond_mask(
        &self,
        secret: &AgreementSecret,
        theirs: &AgreementPublic,
        encapsulation: &Encapsulation,
    ) -> Result<Seed, AgreementError> {
        secret.respond(theirs, encapsulation, MASK, &self.binding)
    }

    /// The key that `me` seals shares to `peer` with, and what the peer needs to get it. `mask` is
    /// the pair's mask seed where `me` encapsulated for it: what the peer can open proves that it
    /// has the same.
    ///
    /// # Errors
    /// As [`PairContext::initiate_mask`].
    pub fn initiate_seal(
        &self,
        secret: &AgreementSecret,
        theirs: &AgreementPublic,
        mask: Option<&Seed>,
    ) -> Result<(Encapsulation, OneTimeKey), AgreementError> {
        let binding = self.direction(self.me, self.peer);
        let (encapsulation, seed) = secret.initiate(theirs, SEAL, &binding)?;
        Ok((encapsulation, sealing_key(seed, mask)))
    }

    /// The key that `peer` sealed shares to `me` with. `mask` is the pair's mask seed where the
    /// peer encapsulated for it.
    ///
    /// # Errors
    /// As [`PairContext::respond_mask`].
    pub fn respond_seal(
        &self,
        secret: &AgreementSecret,
        theirs: &AgreementPublic,
        encapsulation: &Encapsulation,
        mask: Option<&Seed>,
    ) -> Result<OneTimeKey, AgreementError> {
        let binding = self.direction(self.peer, self.me);
        let seed = secret.respond(theirs, encapsulation, SEAL, &binding)?;
        Ok(sealing_key(seed, mask))
    }

    /// What shares sealed by `me` are bound to beside the key; `beside` is the digest of what
    /// travels with them in the open.
    pub fn sent(&self, beside: &Digest) -> Digest {
        self.associated((self.me, self.peer), beside)
    }

    /// What shares sealed by `peer` are bound to beside the key.
    pub fn received(&self, beside: &Digest) -> Digest {
        self.associated((self.peer, self.me), beside)
    }

    fn associated(&self, pair: (MemberIndex, MemberIndex), beside: &Digest) -> Digest {
        DigestWriter::new("fedlora 2 M2 sealed shares")
            .digest(&self.direction(pair.0, pair.1))
            .digest(beside)
            .finish()
    }

    fn direction(&self, sender: MemberIndex, holder: MemberIndex) -> Digest {
        DigestWriter::new("fedlora 2 seal direction")
            .digest(&self.binding)
            .number(sender.0.into())
            .number(holder.0.into())
            .finish()
    }
}

fn sealing_key(seal: Seed, mask: Option<&Seed>) -> OneTimeKey {
    let Some(mask) = mask else {
        return OneTimeKey::new(seal);
    };
    let mut material = Zeroizing::new([0; 64]);
    material[..32].copy_from_slice(seal.expose());
    material[32..].copy_from_slice(mask.expose());
    OneTimeKey::new(Seed::from_bytes(blake3::derive_key(
        SEAL_WITH_MASK,
        material.as_slice(),
    )))
}
