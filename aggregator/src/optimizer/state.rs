//! The optimizer's moments in a file, beside the adapter of the round that they are after.
//!
//! The file holds the moments, first before second, as little-endian f32 in the layout's order, and
//! behind them `H("fedlora 1 server optimizer state"; run, plan, round, adapter, number of values,
//! values)`: 32 bytes that tell a damaged file, and one of another run, plan or round. The digest
//! needs no key. It is no proof against whoever can write the file; a replay of the rounds before
//! is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::bytes::{f32_from_le, f32_to_le};
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_common::files::Access;
use fedlora_protocol::ids::{RoundNumber, RunId};
use fedlora_protocol::wire::messages::RoundResult;

use super::{Rule, ServerOptimizer};
use crate::remedy::Remedy;
use crate::store::Store;

/// Bytes of the digest at a file's end.
const DIGEST: usize = 32;

/// The round that a state is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateOf {
    /// The run.
    pub run: RunId,
    /// The digest of its plan.
    pub plan: Digest,
    /// The round.
    pub round: RoundNumber,
    /// The digest of the adapter that the round came to.
    pub adapter: Digest,
}

impl ServerOptimizer {
    /// Whether the optimizer has moments, and so a state to keep.
    pub fn has_state(&self) -> bool {
        self.moments().next().is_some()
    }

    /// Writes the state whole and durably; nothing where there is none.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn save(&self, store: &Store, path: &Path, of: &StateOf) -> io::Result<()> {
        match self.has_state() {
            true => store.write(path, &self.file(of), Access::Everyone),
            false => Ok(()),
        }
    }

    /// Whether the file at `path` holds exactly this state, after the round that `of` names; true
    /// where there is none to hold, or the file is not there.
    ///
    /// # Errors
    /// Any I/O error but that of a missing file.
    pub fn is_kept_as(&self, path: &Path, of: &StateOf) -> io::Result<bool> {
        if !self.has_state() {
            return Ok(true);
        }
        match fs::read(path) {
            Ok(bytes) => Ok(bytes == self.file(of)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn file(&self, of: &StateOf) -> Vec<u8> {
        let mut bytes = self.moments().map(f32_to_le).collect::<Vec<_>>().concat();
        let digest = of.digest(&bytes);
        bytes.extend(digest.as_bytes());
        bytes
    }

    /// This optimizer with the moments of the file at `path`, which must be of the round that `of`
    /// names; as it is where it has no state.
    ///
    /// # Errors
    /// [`StateError`] for a file that is not there, cannot be read, or is damaged.
    pub fn restored(mut self, path: &Path, of: &StateOf) -> Result<Self, StateError> {
        let at = || path.to_owned();
        let count = self.moments().count();
        if count == 0 {
            return Ok(self);
        }
        let bytes = fs::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StateError::Missing { path: at() },
            _ => StateError::Io { path: at(), source },
        })?;
        let expected = count * self.layout.len() * size_of::<f32>() + DIGEST;
        if bytes.len() != expected {
            let got = bytes.len();
            return Err(StateError::Length {
                path: at(),
                got,
                expected,
            });
        }
        let (values, digest) = bytes.split_at(bytes.len() - DIGEST);
        if of.digest(values).as_bytes() != digest {
            return Err(StateError::Damaged { path: at() });
        }
        let values = f32_from_le(values).unwrap_or_default();
        let length = self.layout.len();
        for (moment, values) in self.moments_mut().zip(values.chunks_exact(length)) {
            moment.copy_from_slice(values);
        }
        Ok(self)
    }

    fn moments(&self) -> impl Iterator<Item = &[f32]> {
        let (one, other): (Option<&[f32]>, Option<&[f32]>) = match &self.rule {
            Rule::Mean => (None, None),
            Rule::Momentum { velocity, .. } => (Some(velocity), None),
            Rule::Adaptive { first, second, .. } => (Some(first), Some(second)),
        };
        one.into_iter().chain(other)
    }

    fn moments_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let (one, other): (Option<&mut [f32]>, Option<&mut [f32]>) = match &mut self.rule {
            Rule::Mean => (None, None),
            Rule::Momentum { velocity, .. } => (Some(velocity), None),
            Rule::Adaptive { first, second, .. } => (Some(first), Some(second)),
        };
        one.into_iter().chain(other)
    }
}

impl StateOf {
    /// The state after the round of this result.
    pub fn after(result: &RoundResult, plan: Digest) -> Self {
        Self {
            run: result.run,
            plan,
            round: result.round,
            adapter: result.adapter,
        }
    }

    fn digest(&self, values: &[u8]) -> Digest {
        let mut writer = DigestWriter::new("fedlora 1 server optimizer state");
        writer
            .raw(&self.run.0)
            .digest(&self.plan)
            .number(self.round.0.into())
            .digest(&self.adapter)
            .number((values.len() / size_of::<f32>()) as u64)
            .raw(values);
        writer.finish()
    }
}

/// Why an optimizer's state is not restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is not there.
    #[error("the server optimizer's state {} is not there", path.display())]
    Missing {
        /// The state's file that is not there.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The state's file that cannot be read.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of another length than moments of this optimizer and adapter have.
    #[error(
        "the server optimizer's state {} has {got} bytes, expected {expected}",
        path.display()
    )]
    Length {
        /// The state's file of another length.
        path: PathBuf,
        /// Its bytes.
        got: usize,
        /// The bytes that moments and digest take.
        expected: usize,
    },
    /// A file whose digest is not that of its moments, run, plan, round and adapter.
    #[error("the server optimizer's state {} is damaged, or of another round", path.display())]
    Damaged {
        /// The state's file that is damaged.
        path: PathBuf,
    },
}

impl StateError {
    /// What would help, where something simple would. Moments cannot be made anew from adapters.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Missing { path } | Self::Length { path, .. } | Self::Damaged { path } => {
                Some(Remedy::RestoreFile { path: path.clone() })
            }
            Self::Io { .. } => None,
        }
    }
}
