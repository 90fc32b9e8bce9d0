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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::agreement::{AgreementRoot, Suite};
    use crate::crypto::os_rng;

    const SUITES: [Suite; 2] = [Suite::Classical, Suite::Hybrid];
    const LOW: MemberIndex = MemberIndex(2);
    const HIGH: MemberIndex = MemberIndex(5);
    const SHARES: &[u8] = b"two shares";

    fn digest(text: &str) -> Digest {
        Digest::of("test", text.as_bytes())
    }

    fn key_pair(suite: Suite) -> AgreementSecret {
        AgreementRoot::random(&mut os_rng()).key_pair(suite)
    }

    /// The side of `me` towards `peer`, each with the digest of its own keys.
    fn side(me: MemberIndex, peer: MemberIndex) -> PairContext {
        let keys = |member: MemberIndex| digest(&format!("keys {member}"));
        PairContext::new(&digest("transcript"), (me, &keys(me)), (peer, &keys(peer)))
    }

    /// Every way in which the peer's view of the pair can differ from that of `side(HIGH, LOW)`.
    fn other_sides() -> Vec<PairContext> {
        let (mine, theirs) = (digest("keys #5"), digest("keys #2"));
        let (transcript, other) = (digest("transcript"), digest("other"));
        let stranger = MemberIndex(3);
        vec![
            PairContext::new(&other, (HIGH, &mine), (LOW, &theirs)),
            PairContext::new(&transcript, (HIGH, &other), (LOW, &theirs)),
            PairContext::new(&transcript, (HIGH, &mine), (LOW, &other)),
            // The keys of each under the other's name.
            PairContext::new(&transcript, (HIGH, &theirs), (LOW, &mine)),
            // Of another sender, for another holder, and what this side sent itself.
            PairContext::new(&transcript, (HIGH, &mine), (stranger, &theirs)),
            PairContext::new(&transcript, (stranger, &mine), (LOW, &theirs)),
            PairContext::new(&transcript, (LOW, &theirs), (HIGH, &mine)),
        ]
    }

    #[test]
    fn both_sides_agree_on_the_mask_and_on_each_seal() {
        for suite in SUITES {
            let (low, high) = (key_pair(suite), key_pair(suite));
            let (at_low, at_high) = (side(LOW, HIGH), side(HIGH, LOW));
            assert!(at_low.initiates() && !at_high.initiates());
            let (sent, mask) = at_low.initiate_mask(&low, high.public()).unwrap();
            assert!(sent.fits(suite));
            let received = at_high.respond_mask(&high, low.public(), &sent).unwrap();
            assert_eq!(mask.expose(), received.expose());

            // The lower seals with the mask's seed, the higher has none yet.
            let beside = digest("beside");
            for (from, to, sender, holder, mask) in [
                (&at_low, &at_high, &low, &high, Some(&mask)),
                (&at_high, &at_low, &high, &low, None),
            ] {
                let (sent, key) = from.initiate_seal(sender, holder.public(), mask).unwrap();
                let sealed = key.seal(SHARES, from.sent(&beside).as_bytes());
                let key = to.respond_seal(holder, sender.public(), &sent, mask);
                let bound = to.received(&beside);
                let opened = key.unwrap().open(&sealed, bound.as_bytes()).unwrap();
                assert_eq!(opened.as_slice(), SHARES);
            }
        }
    }

    /// The key alone is bound to them, and what is sealed is bound to them beside the key.
    #[test]
    fn a_seal_is_bound_to_transcript_keys_sender_and_holder() {
        for suite in SUITES {
            let (low, high) = (key_pair(suite), key_pair(suite));
            let (at_low, at_high) = (side(LOW, HIGH), side(HIGH, LOW));
            let (sent, key) = at_low.initiate_seal(&low, high.public(), None).unwrap();
            let beside = digest("beside");
            let bound = at_low.sent(&beside);
            let sealed = key.seal(SHARES, bound.as_bytes());
            let opens = |keyed: &PairContext, bound: Digest| {
                let key = keyed.respond_seal(&high, low.public(), &sent, None);
                key.unwrap().open(&sealed, bound.as_bytes()).is_ok()
            };
            assert!(opens(&at_high, at_high.received(&beside)));
            for other in other_sides() {
                assert!(!opens(&other, bound), "{other:?}");
                assert!(!opens(&at_high, other.received(&beside)), "{other:?}");
            }
            assert!(!opens(&at_high, at_high.received(&digest("other"))));
            assert!(!opens(&at_high, at_high.sent(&beside)));
        }
    }

    #[test]
    fn what_opens_proves_the_masks_seed() {
        for suite in SUITES {
            let (low, high) = (key_pair(suite), key_pair(suite));
            let (at_low, at_high) = (side(LOW, HIGH), side(HIGH, LOW));
            let (_, mask) = at_low.initiate_mask(&low, high.public()).unwrap();
            let (sent, key) = at_low
                .initiate_seal(&low, high.public(), Some(&mask))
                .unwrap();
            let bound = at_low.sent(&digest("beside"));
            let sealed = key.seal(SHARES, bound.as_bytes());
            let opens = |mask: Option<&Seed>| {
                let key = at_high.respond_seal(&high, low.public(), &sent, mask);
                key.unwrap().open(&sealed, bound.as_bytes()).is_ok()
            };
            assert!(opens(Some(&mask)));
            assert!(!opens(Some(&Seed::random(&mut os_rng()))));
            assert!(!opens(None));
            // The mask's seed itself seals nothing.
            let key = OneTimeKey::new(mask);
            assert!(key.open(&sealed, bound.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_mask_is_bound_to_transcript_and_keys() {
        for suite in SUITES {
            let (low, high) = (key_pair(suite), key_pair(suite));
            let (sent, mask) = side(LOW, HIGH).initiate_mask(&low, high.public()).unwrap();
            // The mask has no direction, and its members are in what the keys' digests are of.
            for other in &other_sides()[..4] {
                let seed = other.respond_mask(&high, low.public(), &sent).unwrap();
                assert_ne!(seed.expose(), mask.expose(), "{other:?}");
            }
            // Another pair of keys.
            let other = key_pair(suite);
            for (secret, public) in [(&high, other.public()), (&other, low.public())] {
                let seed = side(HIGH, LOW).respond_mask(secret, public, &sent).unwrap();
                assert_ne!(seed.expose(), mask.expose());
            }
        }
    }

    #[test]
    fn keys_and_encapsulations_of_another_suite_are_refused() {
        for (suite, other) in [(SUITES[0], SUITES[1]), (SUITES[1], SUITES[0])] {
            let (mine, theirs, odd) = (key_pair(suite), key_pair(suite), key_pair(other));
            let pair = side(LOW, HIGH);
            let refused = Some(AgreementError::Suite);
            assert_eq!(pair.initiate_mask(&mine, odd.public()).err(), refused);
            let seal = pair.initiate_seal(&mine, odd.public(), None);
            assert_eq!(seal.err(), refused);
            let odd = match other {
                Suite::Classical => Encapsulation::default(),
                Suite::Hybrid => {
                    let (sent, _) = pair.initiate_mask(&odd, key_pair(other).public()).unwrap();
                    sent
                }
            };
            let mask = pair.respond_mask(&mine, theirs.public(), &odd);
            assert_eq!(mask.err(), refused);
            let seal = pair.respond_seal(&mine, theirs.public(), &odd, None);
            assert_eq!(seal.err(), refused);
        }
    }
}
