//! Key agreement in two suites: X25519 alone, or X25519 with ML-KEM-768 (FIPS 203) beside it, so
//! that who records today and has a quantum computer later learns nothing.
//!
//! All of a key pair derives from one root of 32 bytes, which is what is secret-shared. The side
//! that encapsulates draws its randomness from its root too: who recovers a root recovers every
//! secret that its holder agreed on, in either role.
//!
//! The two shared secrets are combined by BLAKE3's key derivation over both, the public keys and
//! the ciphertext: the result is secret while either of them is (Bindel et al., PQCrypto 2019;
//! X-Wing, draft-connolly-cfrg-xwing-kem).

use std::fmt;
use std::str::FromStr;

use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use rand::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use fedlora_common::digest::{Digest, DigestWriter};

use super::keys::Seed;
use super::x25519::{PointPublic, PointSecret};

/// Bytes of an ML-KEM-768 encapsulation key.
const KEM_PUBLIC: usize = 1184;
/// Bytes of an ML-KEM-768 ciphertext.
const KEM_CIPHERTEXT: usize = 1088;

/// The algorithms of a round's key agreements. The others are the same in both suites.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// X25519.
    Classical,
    /// X25519 with ML-KEM-768.
    #[default]
    Hybrid,
}

impl Suite {
    /// The suite's number in M0.
    pub const fn code(self) -> u16 {
        match self {
            Self::Classical => 1,
            Self::Hybrid => 2,
        }
    }
}

impl TryFrom<u16> for Suite {
    type Error = SuiteError;

    fn try_from(code: u16) -> Result<Self, SuiteError> {
        match code {
            1 => Ok(Self::Classical),
            2 => Ok(Self::Hybrid),
            _ => Err(SuiteError),
        }
    }
}

impl FromStr for Suite {
    type Err = SuiteError;

    fn from_str(text: &str) -> Result<Self, SuiteError> {
        match text {
            "classical" => Ok(Self::Classical),
            "hybrid" => Ok(Self::Hybrid),
            _ => Err(SuiteError),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Classical => "classical",
            Self::Hybrid => "hybrid",
        })
    }
}

/// Not a suite of algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a suite of algorithms: use classical or hybrid")]
pub struct SuiteError;

/// 32 secret bytes that a key pair derives from. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AgreementRoot([u8; 32]);

impl AgreementRoot {
    /// A fresh random root.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Takes root bytes, for instance those recovered from shares.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, to be shared among the members and nothing else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key pair of this root.
    pub fn key_pair(&self, suite: Suite) -> AgreementSecret {
        let point = PointSecret::from_bytes(blake3::derive_key("fedlora 2 X25519 secret", &self.0));
        let kem = (suite == Suite::Hybrid).then(|| {
            let mut seed = Zeroizing::new([0; 64]);
            blake3::Hasher::new_derive_key("fedlora 2 ML-KEM-768 seed")
                .update(&self.0)
                .finalize_xof()
                .fill(seed.as_mut_slice());
            Box::new(DecapsulationKey::from_seed((*seed).into()))
        });
        let public = AgreementPublic {
            point: point.public(),
            kem: kem.as_ref().map(|kem| {
                let bytes = kem.encapsulation_key().to_bytes();
                KemBytes::new(bytes.as_slice()).expect("an ML-KEM-768 encapsulation key")
            }),
        };
        AgreementSecret {
            root: self.clone(),
            point,
            kem,
            public,
        }
    }
}

impl fmt::Debug for AgreementRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementRoot(..)")
    }
}

/// The public half of a key pair.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgreementPublic {
    point: PointPublic,
    kem: Option<KemBytes<KEM_PUBLIC>>,
}

impl AgreementPublic {
    /// Whether this is a key of the suite that adds secrets of its own: a canonical point that is
    /// not of small order, and an encapsulation key exactly where the suite has one, its
    /// coefficients reduced (FIPS 203, section 7.2).
    pub fn is_sound(&self, suite: Suite) -> bool {
        let kem = match (suite, &self.kem) {
            (Suite::Classical, None) => true,
            (Suite::Hybrid, Some(bytes)) => encapsulation_key(bytes).is_some(),
            _ => false,
        };
        kem && self.point.is_sound()
    }

    /// Adds the key to a digest.
    pub fn write_to(&self, writer: &mut DigestWriter) {
        writer.raw(&self.point.0);
        KemBytes::write_option(self.kem.as_ref(), writer);
    }
}

impl fmt::Debug for AgreementPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgreementPublic({})", hex::encode(&self.point.0[..4]))
    }
}

/// What the encapsulating side sends: nothing in the classical suite, a ciphertext of ML-KEM-768 in
/// the hybrid one. A ciphertext that was changed gives another seed, and no error.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Encapsulation(Option<KemBytes<KEM_CIPHERTEXT>>);

impl Encapsulation {
    /// Whether it is of this suite.
    pub fn fits(&self, suite: Suite) -> bool {
        self.0.is_some() == (suite == Suite::Hybrid)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds it to a digest.
    pub fn write_to(&self, writer: &mut DigestWriter) {
        KemBytes::write_option(self.0.as_ref(), writer);
    }
}

impl fmt::Debug for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.as_ref().map_or(0, |_| KEM_CIPHERTEXT);
        write!(f, "Encapsulation({length} bytes)")
    }
}

/// The secret half of a key pair, made for one attempt at a round. Wiped when dropped.
pub struct AgreementSecret {
    root: AgreementRoot,
    point: PointSecret,
    kem: Option<Box<DecapsulationKey>>,
    public: AgreementPublic,
}

impl AgreementSecret {
    /// The public half, which others agree with.
    pub fn public(&self) -> &AgreementPublic {
        &self.public
    }

    /// The root that all of it derives from.
    pub fn root(&self) -> &AgreementRoot {
        &self.root
    }

    /// Agrees on a seed with the holder of `theirs`, as the side that encapsulates. `context` names
    /// the purpose; `binding` is what both sides must have in common. The same arguments give the
    /// same seed and encapsulation.
    ///
    /// # Errors
    /// [`AgreementError`] for a key that is unsound, or of another suite.
    pub fn initiate(
        &self,
        theirs: &AgreementPublic,
        context: &'static str,
        binding: &Digest,
    ) -> Result<(Encapsulation, Seed), AgreementError> {
        let (encapsulation, kem) = match (&self.kem, &theirs.kem) {
            (None, None) => (Encapsulation(None), None),
            (Some(_), Some(bytes)) => {
                let key = encapsulation_key(bytes).ok_or(AgreementError::Key)?;
                let mut writer = DigestWriter::new("fedlora 2 ML-KEM-768 message");
                writer
                    .raw(&self.root.0)
                    .bytes(context.as_bytes())
                    .digest(binding);
                theirs.write_to(&mut writer);
                let message = Zeroizing::new(*writer.finish().as_bytes());
                let (ciphertext, shared) = key.encapsulate_deterministic(&(*message).into());
                let bytes = KemBytes::new(ciphertext.as_slice()).expect("1,088 bytes");
                (
                    Encapsulation(Some(bytes)),
                    Some(Zeroizing::new(shared.into())),
                )
            }
            _ => return Err(AgreementError::Suite),
        };
        let pair = (&self.public, theirs);
        let seed = self.combine(theirs, kem, pair, &encapsulation, context, binding)?;
        Ok((encapsulation, seed))
    }

    /// Agrees on the seed that the holder of `theirs` made with
    /// [`initiate`](AgreementSecret::initiate).
    ///
    /// # Errors
    /// [`AgreementError`] for a key that is unsound, or a key or encapsulation of another suite.
    pub fn respond(
        &self,
        theirs: &AgreementPublic,
        encapsulation: &Encapsulation,
        context: &'static str,
        binding: &Digest,
    ) -> Result<Seed, AgreementError> {
        let kem = match (&self.kem, &theirs.kem, &encapsulation.0) {
            (None, None, None) => None,
            (Some(key), Some(_), Some(bytes)) => {
                let ciphertext =
                    Ciphertext::try_from(&bytes.0[..]).map_err(|_| AgreementError::Suite)?;
                Some(Zeroizing::new(key.decapsulate(&ciphertext).into()))
            }
            _ => return Err(AgreementError::Suite),
        };
        let pair = (theirs, &self.public);
        self.combine(theirs, kem, pair, encapsulation, context, binding)
    }

    fn combine(
        &self,
        theirs: &AgreementPublic,
        kem: Option<Zeroizing<[u8; 32]>>,
        (initiator, responder): (&AgreementPublic, &AgreementPublic),
        encapsulation: &Encapsulation,
        context: &'static str,
        binding: &Digest,
    ) -> Result<Seed, AgreementError> {
        let point = self.point.agree(&theirs.point).ok_or(AgreementError::Key)?;
        let suite = if kem.is_some() {
            Suite::Hybrid
        } else {
            Suite::Classical
        };
        let mut writer = DigestWriter::new("fedlora 2 agreement binding");
        writer.number(suite.code().into());
        initiator.write_to(&mut writer);
        responder.write_to(&mut writer);
        encapsulation.write_to(&mut writer);
        let bound = writer.digest(binding).finish();
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(point.as_slice());
        if let Some(kem) = kem {
            hasher.update(kem.as_slice());
        }
        hasher.update(bound.as_bytes());
        let seed = Seed::from_bytes(*hasher.finalize().as_bytes());
        hasher.zeroize();
        Ok(seed)
    }
}

impl fmt::Debug for AgreementSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementSecret(..)")
    }
}

fn encapsulation_key(bytes: &KemBytes<KEM_PUBLIC>) -> Option<EncapsulationKey> {
    let key = ml_kem::Key::<EncapsulationKey>::try_from(&bytes.0[..]).ok()?;
    EncapsulationKey::new(&key).ok()
}

/// Public bytes of ML-KEM, of one length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct KemBytes<const N: usize>(Box<[u8; N]>);

impl<const N: usize> KemBytes<N> {
    fn new(bytes: &[u8]) -> Option<Self> {
        <[u8; N]>::try_from(bytes)
            .ok()
            .map(|bytes| Self(Box::new(bytes)))
    }

    fn write_option(bytes: Option<&Self>, writer: &mut DigestWriter) {
        writer.bytes(bytes.map_or(&[][..], |bytes| &bytes.0[..]));
    }
}

impl<const N: usize> Serialize for KemBytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(&hex::encode(&self.0[..]));
        }
        serializer.serialize_bytes(&self.0[..])
    }
}

impl<'de, const N: usize> Deserialize<'de> for KemBytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            hex::decode(text).map_err(serde::de::Error::custom)?
        } else {
            Vec::<u8>::deserialize(deserializer)?
        };
        let expected = format!("{N} bytes");
        Self::new(&bytes).ok_or_else(|| serde::de::Error::invalid_length(bytes.len(), &&*expected))
    }
}

/// Why no seed can be agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgreementError {
    /// A point of small order or not in canonical form, or bytes that are no encapsulation key.
    #[error("the key is of small order, not in canonical form, or no key at all")]
    Key,
    /// Keys or an encapsulation of different suites.
    #[error("the key or encapsulation is of another suite of algorithms")]
    Suite,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::os_rng;
    use crate::wire::codec;

    const SUITES: [Suite; 2] = [Suite::Classical, Suite::Hybrid];

    fn pair(suite: Suite) -> (AgreementSecret, AgreementSecret) {
        let secret = || AgreementRoot::random(&mut os_rng()).key_pair(suite);
        (secret(), secret())
    }

    fn binding(text: &str) -> Digest {
        Digest::of("test", text.as_bytes())
    }

    #[test]
    fn both_sides_agree_and_all_that_is_bound_counts() {
        for suite in SUITES {
            let (a, b) = pair(suite);
            let (other, _) = pair(suite);
            let one = binding("1");
            let (sent, seed) = a.initiate(b.public(), "test", &one).unwrap();
            assert!(sent.fits(suite));
            let same = b.respond(a.public(), &sent, "test", &one).unwrap();
            assert_eq!(seed.expose(), same.expose());
            for wrong in [
                b.respond(a.public(), &sent, "test", &binding("2")),
                b.respond(a.public(), &sent, "other", &one),
                b.respond(other.public(), &sent, "test", &one),
                other.respond(a.public(), &sent, "test", &one),
            ] {
                assert_ne!(seed.expose(), wrong.unwrap().expose());
            }
        }
    }

    #[test]
    fn who_has_a_root_has_its_seeds_in_either_role() {
        for suite in SUITES {
            let (a, b) = pair(suite);
            let one = binding("1");
            let (sent, seed) = a.initiate(b.public(), "test", &one).unwrap();
            let again = AgreementRoot::from_bytes(*a.root().expose()).key_pair(suite);
            assert_eq!(again.public(), a.public());
            let (same, recovered) = again.initiate(b.public(), "test", &one).unwrap();
            assert_eq!((same, recovered.expose()), (sent.clone(), seed.expose()));
            let again = AgreementRoot::from_bytes(*b.root().expose()).key_pair(suite);
            let recovered = again.respond(a.public(), &sent, "test", &one).unwrap();
            assert_eq!(recovered.expose(), seed.expose());
        }
    }

    #[test]
    fn a_changed_ciphertext_gives_another_seed() {
        let (a, b) = pair(Suite::Hybrid);
        let one = binding("1");
        let (sent, seed) = a.initiate(b.public(), "test", &one).unwrap();
        let mut bytes = sent.0.unwrap();
        bytes.0[700] ^= 1;
        let changed = Encapsulation(Some(bytes));
        let other = b.respond(a.public(), &changed, "test", &one).unwrap();
        assert_ne!(other.expose(), seed.expose());
    }

    #[test]
    fn another_suite_is_refused() {
        let (classical, _) = pair(Suite::Classical);
        let (hybrid, peer) = pair(Suite::Hybrid);
        let one = binding("1");
        let suite = Some(AgreementError::Suite);
        assert_eq!(
            classical.initiate(hybrid.public(), "test", &one).err(),
            suite
        );
        assert_eq!(
            hybrid.initiate(classical.public(), "test", &one).err(),
            suite
        );
        let empty = Encapsulation::default();
        assert_eq!(
            hybrid.respond(peer.public(), &empty, "test", &one).err(),
            suite
        );
        let (sent, _) = peer.initiate(hybrid.public(), "test", &one).unwrap();
        let refused = classical.respond(classical.public(), &sent, "test", &one);
        assert_eq!(refused.err(), suite);
        assert!(!classical.public().is_sound(Suite::Hybrid));
        assert!(!hybrid.public().is_sound(Suite::Classical));
        assert!(hybrid.public().is_sound(Suite::Hybrid));
    }

    #[test]
    fn unsound_keys_are_refused() {
        let (a, b) = pair(Suite::Hybrid);
        let mut low_order = b.public().clone();
        low_order.point = PointPublic([0; 32]);
        // A coefficient of 4095, which is not reduced modulo 3329.
        let mut unreduced = b.public().clone();
        let kem = unreduced.kem.as_mut().unwrap();
        (kem.0[0], kem.0[1]) = (0xff, kem.0[1] | 0x0f);
        for key in [low_order, unreduced] {
            assert!(!key.is_sound(Suite::Hybrid));
            let refused = a.initiate(&key, "test", &binding("1"));
            assert_eq!(refused.err(), Some(AgreementError::Key));
        }
    }

    #[test]
    fn keys_are_small_and_other_lengths_are_refused() {
        let (classical, _) = pair(Suite::Classical);
        let (hybrid, peer) = pair(Suite::Hybrid);
        assert_eq!(codec::encode(classical.public()).unwrap().len(), 33);
        let bytes = codec::encode(hybrid.public()).unwrap();
        assert_eq!(bytes.len(), 32 + 1 + 3 + KEM_PUBLIC);
        assert_eq!(
            &codec::decode::<AgreementPublic>(&bytes).unwrap(),
            hybrid.public()
        );
        let (sent, _) = hybrid
            .initiate(peer.public(), "test", &binding("1"))
            .unwrap();
        let bytes = codec::encode(&sent).unwrap();
        assert_eq!(codec::decode::<Encapsulation>(&bytes).unwrap(), sent);
        let short = codec::encode(&Some(vec![0_u8; KEM_CIPHERTEXT - 1])).unwrap();
        assert!(codec::decode::<Encapsulation>(&short).is_err());
        let text = serde_json::to_string(hybrid.public()).unwrap();
        let back: AgreementPublic = serde_json::from_str(&text).unwrap();
        assert_eq!(&back, hybrid.public());
    }

    #[test]
    fn suites_have_numbers_and_names() {
        for suite in SUITES {
            assert_eq!(Suite::try_from(suite.code()), Ok(suite));
            assert_eq!(suite.to_string().parse(), Ok(suite));
        }
        assert_eq!(Suite::try_from(3), Err(SuiteError));
        assert_eq!("pqc".parse::<Suite>(), Err(SuiteError));
        assert!(Suite::Classical < Suite::Hybrid);
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let root = AgreementRoot::from_bytes([0xab; 32]);
        assert_eq!(format!("{root:?}"), "AgreementRoot(..)");
        let secret = root.key_pair(Suite::Hybrid);
        assert_eq!(format!("{secret:?}"), "AgreementSecret(..)");
    }
}
