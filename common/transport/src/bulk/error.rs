//! Why a transfer of a large object failed.

use std::io;

use super::manifest::ManifestError;
use super::reply::{Refusal, Reply, ReplyError};
use crate::frame::FrameError;

/// A transfer that failed.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The stream broke, or carried a malformed frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A manifest that cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The receiver sent a malformed reply.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The other side, the receiver, refused.
    #[error("the receiver refused the object: {0}")]
    Refused(Refusal),
    /// This side, the receiver, refused.
    #[error("the object is refused: {0}")]
    Rejected(Refusal),
    /// The object could not be read.
    #[error("the object to send cannot be read: {0}")]
    Source(#[source] io::Error),
    /// The object could not be stored.
    #[error("the object received cannot be stored: {0}")]
    Storage(#[source] io::Error),
    /// A reply out of order.
    #[error("the receiver answered {got:?}, where {expected} was expected")]
    Unexpected {
        /// The reply that the state of the transfer called for.
        expected: &'static str,
        /// The reply that arrived.
        got: Reply,
    },
}
