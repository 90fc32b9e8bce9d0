//! Bytes as a script: what to do next, with what, and what to change in it.

use fedlora_protocol::wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::recorded::Recorded;

/// The largest number of bytes that one step changes.
const MAX_CHANGES: u8 = 4;

/// What is left of the bytes. At their end everything is zero.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The federation that the next byte chooses: mostly the smaller, which is quicker.
    pub(crate) fn federation(&mut self) -> &'static Recorded {
        match self.byte() % 4 {
            1 => Recorded::sparse(),
            _ => Recorded::complete(),
        }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// A number below `end`, which is at most 2^16.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = u16::from_le_bytes([self.byte(), self.byte()]);
        usize::from(number) % end.max(1)
    }

    /// As many bytes as the next one says, or as there are.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// A value with a few bytes of its encoding changed, where that still decodes.
    pub(crate) fn changed<T: Serialize + DeserializeOwned>(&mut self, value: &T) -> Option<T> {
        let mut bytes = codec::encode(value).expect("it was sent before");
        for _ in 0..=self.byte() % MAX_CHANGES {
            let at = self.below(bytes.len());
            bytes[at] = self.byte();
        }
        codec::decode(&bytes).ok()
    }
}
