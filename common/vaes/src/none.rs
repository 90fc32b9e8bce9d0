//! Where there are no such instructions.

use crate::Combine;

/// A stream that cannot be had here.
#[derive(Debug, Clone)]
pub enum Aes256Ctr {}

impl Aes256Ctr {
    /// `None`: there is no such code for this processor.
    pub fn new(_key: &[u8; 32]) -> Option<Self> {
        None
    }

    /// Never called: there is no such stream.
    pub fn combine(&self, _block: u64, _lanes: &mut [u32], _combine: Combine) {
        match *self {}
    }
}
