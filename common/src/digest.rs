//! BLAKE3 digests, and the writer that computes one over several fields.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A 32-byte BLAKE3 digest. Printed and serialised for people as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps digest bytes that were computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// BLAKE3 of `data`, in the key-derivation mode of its own: equal bytes hashed for
    /// different purposes give unrelated digests.
    pub fn of(context: &'static str, data: &[u8]) -> Self {
        let mut hasher = DigestWriter::new(context);
        hasher.raw(data);
        hasher.finish()
    }

    /// [`of`](Self::of) all that is left to read, a megabyte at a time, with its length.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn of_all(context: &'static str, mut from: impl Read) -> io::Result<(u64, Self)> {
        const PIECE: usize = 1 << 20;
        let mut writer = DigestWriter::new(context);
        let (mut piece, mut length) = (vec![0; PIECE], 0);
        loop {
            let read = from.read(&mut piece)?;
            if read == 0 {
                return Ok((length, writer.finish()));
            }
            writer.raw_in_parallel(&piece[..read]);
            length += read as u64;
        }
    }

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hex digits, for tables and log lines.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = DigestParseError;

    fn from_str(text: &str) -> Result<Self, DigestParseError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| DigestParseError {
            got: text.chars().take(80).collect(),
        })?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Builds a [`Digest`] over several fields. Every variable-length field is preceded by its
/// length, so no two field lists give the same input.
pub struct DigestWriter(blake3::Hasher);

impl DigestWriter {
    /// Starts a digest for one purpose; `context` names it, once in the whole program.
    pub fn new(context: &'static str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    /// Adds bytes as they are; the caller answers for their framing.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Adds bytes as [`raw`](Self::raw) does, on several threads: worth it from a megabyte on.
    pub fn raw_in_parallel(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update_rayon(bytes);
        self
    }

    /// Adds a length-prefixed byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.raw(bytes)
    }

    /// Adds an integer as eight little-endian bytes.
    pub fn number(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds another digest.
    pub fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.raw(digest.as_bytes())
    }

    /// The digest of all that was added.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// Text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is not a digest: expected 64 hexadecimal digits")]
pub struct DigestParseError {
    /// The text, cut at 80 characters.
    pub got: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_as_text_and_refuse_other_text() {
        let digest = Digest::of("fedlora test", b"x");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("12".parse::<Digest>().is_err());
        assert!("zz".repeat(32).parse::<Digest>().is_err());
    }

    #[test]
    fn what_is_read_has_the_digest_of_its_bytes() {
        for length in [0, 1, (1 << 20) - 1, 1 << 20, (5 << 19) + 3] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let read = Digest::of_all("fedlora test", bytes.as_slice()).unwrap();
            assert_eq!(read, (length as u64, Digest::of("fedlora test", &bytes)));
        }
    }

    #[test]
    fn field_boundaries_and_contexts_count() {
        let digest = |a: &[u8], b: &[u8]| DigestWriter::new("t").bytes(a).bytes(b).finish();
        assert_ne!(digest(b"ab", b"c"), digest(b"a", b"bc"));
        assert_ne!(Digest::of("one", b"x"), Digest::of("two", b"x"));
    }
}
