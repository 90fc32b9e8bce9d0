//! What the receiver of a large object answers: a fixed binary layout.
//!
//! ```text
//! reply     1 | first missing chunk u32          continue from there
//!           2 | digest [32]                      all is durable
//!           3 | code u8 | detail u64             refused
//! ```
//! Integers are little-endian.

use fedlora_common::digest::Digest;

/// The longest reply, in bytes.
pub const MAX_REPLY_BYTES: usize = 33;

/// A receiver's answer to a manifest or to the last chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Send from this chunk on; everything before it is held and verified.
    Continue(u32),
    /// The object with this digest is held, verified and durable.
    Done(Digest),
    /// The transfer has failed.
    Refused(Refusal),
}

/// Why a receiver refused an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The manifest is not well-formed.
    #[error("its manifest is malformed")]
    Manifest,
    /// The object has another length than is expected; the largest that would be taken, in bytes.
    #[error("its length is not what is expected there ({0} bytes)")]
    Length(u64),
    /// The object's digest is not the expected one.
    #[error("its digest is not what is expected there")]
    OtherObject,
    /// A chunk is not what the manifest says.
    #[error("chunk {0} is not what the manifest says")]
    Chunk(u64),
    /// All chunks fit the manifest, and the whole does not.
    #[error("the whole does not have the digest that the manifest says")]
    Digest,
    /// The receiver could not store it; this many bytes are held and need not be sent again.
    #[error("the receiver cannot store it now; it holds {0} bytes")]
    Storage(u64),
}

impl Reply {
    /// The reply as 5, 33 or 10 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_REPLY_BYTES);
        match self {
            Self::Continue(first) => {
                bytes.push(1);
                bytes.extend_from_slice(&first.to_le_bytes());
            }
            Self::Done(digest) => {
                bytes.push(2);
                bytes.extend_from_slice(digest.as_bytes());
            }
            Self::Refused(refusal) => {
                let (code, detail) = match refusal {
                    Refusal::Manifest => (1, 0),
                    Refusal::Length(limit) => (2, *limit),
                    Refusal::OtherObject => (3, 0),
                    Refusal::Chunk(index) => (4, *index),
                    Refusal::Digest => (5, 0),
                    Refusal::Storage(held) => (6, *held),
                };
                bytes.extend_from_slice(&[3, code]);
                bytes.extend_from_slice(&detail.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// [`ReplyError`] for any other bytes than [`Reply::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReplyError> {
        let malformed = ReplyError {
            tag: bytes.first().copied().unwrap_or_default(),
            length: bytes.len(),
        };
        match bytes {
            [1, rest @ ..] => <[u8; 4]>::try_from(rest)
                .map(|first| Self::Continue(u32::from_le_bytes(first)))
                .map_err(|_| malformed),
            [2, rest @ ..] => <[u8; 32]>::try_from(rest)
                .map(|digest| Self::Done(Digest::from_bytes(digest)))
                .map_err(|_| malformed),
            [3, code, rest @ ..] => {
                let Ok(detail) = <[u8; 8]>::try_from(rest) else {
                    return Err(malformed);
                };
                let detail = u64::from_le_bytes(detail);
                Ok(Self::Refused(match (code, detail) {
                    (1, 0) => Refusal::Manifest,
                    (2, limit) => Refusal::Length(limit),
                    (3, 0) => Refusal::OtherObject,
                    (4, index) => Refusal::Chunk(index),
                    (5, 0) => Refusal::Digest,
                    (6, held) => Refusal::Storage(held),
                    _ => return Err(malformed),
                }))
            }
            _ => Err(malformed),
        }
    }
}

/// A malformed reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed reply (tag {tag}, {length} bytes)")]
pub struct ReplyError {
    /// Its first byte; 0 where it has none.
    pub tag: u8,
    /// Its length in bytes.
    pub length: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bulk::content_digest;

    #[test]
    fn replies_round_trip_and_others_are_refused() {
        let replies = [
            Reply::Continue(7),
            Reply::Done(content_digest(b"x")),
            Reply::Refused(Refusal::Manifest),
            Reply::Refused(Refusal::Length(9)),
            Reply::Refused(Refusal::OtherObject),
            Reply::Refused(Refusal::Chunk(3)),
            Reply::Refused(Refusal::Digest),
            Reply::Refused(Refusal::Storage(1 << 40)),
        ];
        for reply in replies {
            let bytes = reply.encode();
            assert!(bytes.len() <= MAX_REPLY_BYTES);
            assert_eq!(Reply::decode(&bytes), Ok(reply));
            assert!(Reply::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        assert!(Reply::decode(&[3, 7, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Reply::decode(&[9]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(reply) = Reply::decode(&bytes) {
                prop_assert_eq!(reply.encode(), bytes);
            }
        }
    }
}
