//! The only place that touches bincode. Every decode has a byte limit, refuses trailing
//! bytes, and every encode is checked against the same limit, so that no one sends what the
//! other side would refuse.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest control message. Vectors and adapters travel outside the codec.
pub const MESSAGE_LIMIT: usize = 4 << 20;

/// Encodes a message: little-endian, variable-length integers, no type information.
///
/// # Errors
/// [`CodecError::TooLong`] above [`MESSAGE_LIMIT`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes =
        bincode::serde::encode_to_vec(message, config()).map_err(|error| CodecError::Encode {
            message: error.to_string(),
        })?;
    if bytes.len() > MESSAGE_LIMIT {
        return Err(CodecError::TooLong { got: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes a message that fills `bytes` exactly.
///
/// # Errors
/// [`CodecError`] for a malformed message, one that claims more than the limit, or trailing
/// bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > MESSAGE_LIMIT {
        return Err(CodecError::TooLong { got: bytes.len() });
    }
    let (message, used) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(|error| CodecError::Decode {
            what: std::any::type_name::<T>()
                .rsplit("::")
                .next()
                .unwrap_or_default(),
            message: error.to_string(),
        })?;
    if used != bytes.len() {
        return Err(CodecError::Trailing {
            got: bytes.len() - used,
        });
    }
    Ok(message)
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MESSAGE_LIMIT>()
}

/// Why a message cannot be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A message longer than [`MESSAGE_LIMIT`].
    #[error("a message of {got} bytes exceeds the limit of {MESSAGE_LIMIT}")]
    TooLong {
        /// The length in bytes.
        got: usize,
    },
    /// A malformed message.
    #[error("malformed {what}: {message}")]
    Decode {
        /// The type that was expected.
        what: &'static str,
        /// The codec's reason, in words.
        message: String,
    },
    /// A value that the codec cannot encode.
    #[error("the message cannot be encoded: {message}")]
    Encode {
        /// The codec's reason, in words.
        message: String,
    },
    /// Bytes after the end of the message.
    #[error("{got} bytes follow the message")]
    Trailing {
        /// The number of trailing bytes.
        got: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::messages::{ToAggregator, ToMember};

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // A Vec<u8> that claims 2^62 elements.
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1_u64 << 62).to_le_bytes());
        assert!(matches!(
            decode::<Vec<u8>>(&bytes),
            Err(CodecError::Decode { .. })
        ));
        assert!(matches!(
            decode::<Vec<u8>>(&vec![0; MESSAGE_LIMIT + 1]),
            Err(CodecError::TooLong { .. })
        ));
        assert!(matches!(
            encode(&vec![0_u8; MESSAGE_LIMIT]),
            Err(CodecError::TooLong { .. } | CodecError::Encode { .. })
        ));
        assert_eq!(decode::<u8>(&[1, 2]), Err(CodecError::Trailing { got: 1 }));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_canonically_or_not_at_all(
            bytes in prop::collection::vec(any::<u8>(), 0..256),
        ) {
            if let Ok(message) = decode::<ToAggregator>(&bytes) {
                let again = encode(&message).unwrap();
                prop_assert_eq!(decode::<ToAggregator>(&again).unwrap(), message);
            }
            if let Ok(message) = decode::<ToMember>(&bytes) {
                prop_assert!(encode(&message).is_ok());
            }
        }
    }
}
