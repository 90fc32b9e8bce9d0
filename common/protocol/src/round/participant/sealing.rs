//! How two members seal shares to each other: the key, and what a sealed pair is bound to.

use crate::crypto::keys::{AgreementError, AgreementPublic, AgreementSecret};
use crate::crypto::seal::OneTimeKey;
use crate::ids::MemberIndex;
use fedlora_common::digest::{Digest, DigestWriter};

/// The key that `pair.0` seals its shares to `pair.1` with.
///
/// # Errors
/// [`AgreementError`] where the peer's key is of small order.
pub(super) fn sealing_key(
    secret: &AgreementSecret,
    theirs: &AgreementPublic,
    pair: (MemberIndex, MemberIndex),
    transcript: &Digest,
) -> Result<OneTimeKey, AgreementError> {
    let binding = seal_binding(transcript, pair.0, pair.1);
    secret
        .agree(theirs, "fedlora 1 share sealing key", &binding)
        .map(OneTimeKey::new)
}

/// What a sealed pair of shares is bound to: the transcript, its sender and its holder.
pub(super) fn seal_binding(
    transcript: &Digest,
    sender: MemberIndex,
    holder: MemberIndex,
) -> Digest {
    DigestWriter::new("fedlora 1 M2 sealed shares")
        .digest(transcript)
        .number(sender.0.into())
        .number(holder.0.into())
        .finish()
}
