//! STUB
#![allow(missing_docs)]
use crate::crypto::keys::Seed;
use fedlora_common::digest::{Digest, DigestWriter};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, Hash,
)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    Classical,
    #[default]
    Hybrid,
}
impl Suite {
    pub fn code(self) -> u16 {
        match self {
            Self::Classical => 1,
            Self::Hybrid => 2,
        }
    }
}
impl TryFrom<u16> for Suite {
    type Error = ();
    fn try_from(c: u16) -> Result<Self, ()> {
        match c {
            1 => Ok(Self::Classical),
            2 => Ok(Self::Hybrid),
            _ => Err(()),
        }
    }
}
impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Classical => "classical",
            Self::Hybrid => "hybrid",
        })
    }
}
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AgreementRoot([u8; 32]);
impl std::fmt::Debug for AgreementRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgreementRoot(..)")
    }
}
impl AgreementRoot {
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut b = [0; 32];
        rng.fill_bytes(&mut b);
        Self(b)
    }
    pub fn from_bytes(b: [u8; 32]) -> Self {
        Self(b)
    }
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
    pub fn key_pair(&self, _suite: Suite) -> AgreementSecret {
        let secret =
            crate::crypto::keys::AgreementSecret::from_bytes(blake3::derive_key("x", &self.0));
        AgreementSecret {
            public: AgreementPublic(secret.public().0),
            root: self.clone(),
            secret,
        }
    }
}
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct AgreementPublic(pub [u8; 32]);
impl AgreementPublic {
    pub fn is_sound(&self, _suite: Suite) -> bool {
        crate::crypto::keys::AgreementPublic(self.0).is_sound()
    }
    pub fn write_to(&self, w: &mut DigestWriter) {
        w.raw(&self.0);
    }
}
#[derive(Debug)]
pub struct AgreementSecret {
    public: AgreementPublic,
    root: AgreementRoot,
    secret: crate::crypto::keys::AgreementSecret,
}
impl AgreementSecret {
    pub fn public(&self) -> &AgreementPublic {
        &self.public
    }
    pub fn root(&self) -> &AgreementRoot {
        &self.root
    }
    pub fn initiate(
        &self,
        theirs: &AgreementPublic,
        context: &'static str,
        binding: &Digest,
    ) -> Result<(Encapsulation, Seed), AgreementError> {
        Ok((
            Encapsulation(None),
            self.secret
                .agree(
                    &crate::crypto::keys::AgreementPublic(theirs.0),
                    context,
                    binding,
                )
                .map_err(|_| AgreementError)?,
        ))
    }
    pub fn respond(
        &self,
        theirs: &AgreementPublic,
        _e: &Encapsulation,
        context: &'static str,
        binding: &Digest,
    ) -> Result<Seed, AgreementError> {
        self.secret
            .agree(
                &crate::crypto::keys::AgreementPublic(theirs.0),
                context,
                binding,
            )
            .map_err(|_| AgreementError)
    }
}
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Encapsulation(Option<Vec<u8>>);
impl Encapsulation {
    pub fn fits(&self, _s: Suite) -> bool {
        true
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
    pub fn write_to(&self, w: &mut DigestWriter) {
        w.number(0);
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stub")]
pub struct AgreementError;
