//! The round's messages, M0 to M6, one file a step, and the envelopes that they travel in.

mod beacon;
mod envelope;
mod failure;
mod keys;
mod open;
mod result;
mod reveal;
mod shares;
mod survivors;
mod update;

pub use beacon::{BeaconOpening, Commitments, NONCE_LEN, OpenedCommitment, commitment_to};
pub use envelope::{Ready, RoundMessage, ToAggregator, ToMember};
pub use failure::{PhaseName, RoundFailure};
pub use keys::{Cohort, Keys, PeerKeys, keys_context};
pub use open::{Open, OpenTag};
pub use result::RoundResult;
pub use reveal::{Reveal, RevealedShare};
pub use shares::{Deal, DealtShares, HeldShares, SealedShares, ShareCommitments, ShareKind};
pub use survivors::{ClaimedVector, Confirmation, Confirmations, SurvivorList, Survivors};
pub use update::{UpdateClaim, VectorDigest, dealers_digest, vector_digest};
