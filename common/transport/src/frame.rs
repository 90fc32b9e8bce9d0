//! Length-prefixed frames: a `u32` little-endian length, then that many bytes.
//!
//! Every read names the largest payload that it takes. Memory grows with the bytes that arrive,
//! never with the length that the peer claims.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 4;

/// The largest number of bytes that is read, and so allocated, in one step.
const STEP: usize = 64 * 1024;

/// Reads one frame's payload, of 1 to `limit` bytes.
///
/// # Errors
/// [`FrameError`] when the stream ends early, fails, or claims a length outside 1 to `limit`.
pub async fn read_frame<R>(reader: &mut R, limit: usize) -> Result<Vec<u8>, FrameError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut header = [0; HEADER_BYTES];
    read_full(reader, &mut header)
        .await
        .map_err(|stop| match stop {
            Stop::Ended(0) => FrameError::Ended,
            Stop::Ended(got) => FrameError::TruncatedHeader { got },
            Stop::Failed(source) => FrameError::Io(source),
        })?;
    let expected = decode_header(&header, limit)?;

    let mut payload = Vec::with_capacity(expected.min(STEP));
    while payload.len() < expected {
        let start = payload.len();
        payload.resize(expected.min(start + STEP), 0);
        read_full(reader, &mut payload[start..])
            .await
            .map_err(|stop| match stop {
                Stop::Ended(got) => FrameError::Truncated {
                    got: start + got,
                    expected,
                },
                Stop::Failed(source) => FrameError::Io(source),
            })?;
    }
    Ok(payload)
}

/// Writes one frame. The receiver's limit is the caller's to know; here only an empty payload and
/// one that no header can describe are refused.
///
/// # Errors
/// [`FrameError::Empty`], [`FrameError::Oversized`] or [`FrameError::Io`].
pub async fn write_frame<W>(writer: &mut W, payload: &[u8]) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    writer.write_all(&encode_header(payload.len())?).await?;
    writer.write_all(payload).await?;
    writer.flush().await?;
    Ok(())
}

/// The header of a payload of `length` bytes.
///
/// # Errors
/// [`FrameError::Empty`] for 0, [`FrameError::Oversized`] above `u32::MAX`.
pub fn encode_header(length: usize) -> Result<[u8; HEADER_BYTES], FrameError> {
    match u32::try_from(length) {
        Ok(0) => Err(FrameError::Empty),
        Ok(length) => Ok(length.to_le_bytes()),
        Err(_) => Err(FrameError::Oversized {
            got: length as u64,
            limit: u64::from(u32::MAX),
        }),
    }
}

/// The payload length that a header states, if it is within 1 to `limit`. Takes any bytes and
/// looks at the first [`HEADER_BYTES`].
///
/// # Errors
/// [`FrameError::TruncatedHeader`], [`FrameError::Empty`] or [`FrameError::Oversized`].
pub fn decode_header(bytes: &[u8], limit: usize) -> Result<usize, FrameError> {
    let header = bytes
        .first_chunk::<HEADER_BYTES>()
        .ok_or(FrameError::TruncatedHeader { got: bytes.len() })?;
    let claimed = u32::from_le_bytes(*header);
    match usize::try_from(claimed) {
        Ok(0) => Err(FrameError::Empty),
        Ok(length) if length <= limit => Ok(length),
        _ => Err(FrameError::Oversized {
            got: u64::from(claimed),
            limit: limit as u64,
        }),
    }
}

/// Why a buffer was not filled.
pub(super) enum Stop {
    /// The stream ended after this many bytes.
    Ended(usize),
    Failed(std::io::Error),
}

/// Fills `buffer`, telling an orderly end from a failure and counting what came before it.
pub(super) async fn read_full<R>(reader: &mut R, buffer: &mut [u8]) -> Result<(), Stop>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]).await {
            Ok(0) => return Err(Stop::Ended(filled)),
            Ok(read) => filled += read,
            Err(source) => return Err(Stop::Failed(source)),
        }
    }
    Ok(())
}

/// A frame that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended between two frames.
    #[error("the stream ended where a frame was expected")]
    Ended,
    /// The stream ended within the length prefix.
    #[error("the stream ended within a frame's header: {got} of {HEADER_BYTES} bytes arrived")]
    TruncatedHeader {
        /// Bytes that arrived.
        got: usize,
    },
    /// The stream ended within the payload.
    #[error("the stream ended within a frame: {got} of {expected} bytes arrived")]
    Truncated {
        /// Bytes that arrived.
        got: usize,
        /// Bytes that the header promised.
        expected: usize,
    },
    /// A length of zero: no message of ours is empty.
    #[error("a frame of 0 bytes; frames hold at least 1")]
    Empty,
    /// A length above the limit.
    #[error("a frame of {got} bytes; at most {limit} are taken here")]
    Oversized {
        /// The length claimed.
        got: u64,
        /// The largest payload that is taken.
        limit: u64,
    },
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] std::io::Error),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn read(mut bytes: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
        block_on(read_frame(&mut bytes, limit))
    }

    #[test]
    fn refuses_what_is_empty_oversized_or_cut() {
        assert!(matches!(read(&[], 9), Err(FrameError::Ended)));
        assert!(matches!(
            read(&[1, 0], 9),
            Err(FrameError::TruncatedHeader { got: 2 })
        ));
        assert!(matches!(read(&[0; 4], 9), Err(FrameError::Empty)));
        assert!(matches!(
            read(&[10, 0, 0, 0, 1], 9),
            Err(FrameError::Oversized { got: 10, limit: 9 })
        ));
        assert!(matches!(
            read(&[5, 0, 0, 0, 1, 2], 9),
            Err(FrameError::Truncated {
                got: 2,
                expected: 5
            })
        ));
        assert!(matches!(encode_header(0), Err(FrameError::Empty)));
    }

    #[test]
    fn a_claimed_length_is_not_allocated_before_its_bytes_arrive() {
        // 4 GiB claimed and allowed, three bytes sent: this would not end well otherwise.
        let error = read(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3], usize::MAX).unwrap_err();
        assert!(matches!(error, FrameError::Truncated { got: 3, .. }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, limit in 0..5000_usize) {
            if let Ok(payload) = read(&bytes, limit) {
                prop_assert!((1..=limit).contains(&payload.len()));
            }
            if let Ok(length) = decode_header(&bytes, limit) {
                prop_assert!((1..=limit).contains(&length));
            }
        }

        #[test]
        fn frames_round_trip(payload in prop::collection::vec(any::<u8>(), 1..200_000)) {
            let mut wire = Vec::new();
            block_on(write_frame(&mut wire, &payload)).unwrap();
            prop_assert_eq!(wire.len(), payload.len() + HEADER_BYTES);
            prop_assert_eq!(read(&wire, payload.len()).unwrap(), payload.clone());
            prop_assert!(read(&wire, payload.len() - 1).is_err());
        }
    }
}
