//! A signed message is `Unverified` until its signature has been checked against the key of
//! whom it claims to be from; only then is its body accessible.

use serde::{Deserialize, Serialize};

use crate::crypto::sign::{BadSignature, IdentityKey, IdentityPublic, Signature};
use fedlora_common::digest::Digest;

/// A body that can be signed.
pub trait Signable {
    /// The digest that is signed. `context` is the digest of the round's opening message, so
    /// that no signature serves another round, attempt, roster or model.
    fn signed_digest(&self, context: &Digest) -> Digest;
}

/// A body with a signature that has not been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unverified<T> {
    body: T,
    signature: Signature,
}

impl<T: Signable> Unverified<T> {
    /// Puts a body and a signature from elsewhere together.
    pub fn from_parts(body: T, signature: Signature) -> Self {
        Self { body, signature }
    }

    /// What the body claims, to look up whose key it is to be checked with. Nothing else may
    /// be taken from it.
    pub fn claimed(&self) -> &T {
        &self.body
    }

    /// The signature that the body came with.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// Checks the signature against the key of the claimed signer.
    ///
    /// # Errors
    /// [`BadSignature`] where it is not `signer`'s over this body in this context.
    pub fn verify(
        self,
        signer: &IdentityPublic,
        context: &Digest,
    ) -> Result<Verified<T>, BadSignature> {
        signer.verify(&self.body.signed_digest(context), &self.signature)?;
        Ok(Verified(self))
    }
}

/// A body whose signature was checked, or that was signed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(Unverified<T>);

impl<T: Signable> Verified<T> {
    /// Signs a body for one context.
    pub fn sign(body: T, key: &IdentityKey, context: &Digest) -> Self {
        let signature = key.sign(&body.signed_digest(context));
        Self(Unverified { body, signature })
    }

    /// The body, whose signature is checked.
    pub fn body(&self) -> &T {
        &self.0.body
    }

    /// The signature that was checked or made.
    pub fn signature(&self) -> Signature {
        self.0.signature()
    }

    /// The form in which it travels on, to be checked again by whoever receives it.
    pub fn unverified(&self) -> &Unverified<T> {
        &self.0
    }

    /// The body without its signature.
    pub fn into_body(self) -> T {
        self.0.body
    }
}
