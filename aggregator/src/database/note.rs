//! `store.json` in the operator's directory: what this host remembers of the database. Not kept there.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "database")]
use fedlora_common::files::{Access, write_atomic};
use serde::{Deserialize, Serialize};

use crate::run_directory::read_json;

/// What this host remembers of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoreNote {
    /// The name by which the process that serves this directory has the lease, or had it last.
    pub(crate) holder: String,
    /// The host and directory for which this was written: a copy elsewhere is no holder.
    pub(crate) place: String,
    /// The newest change that the directory has.
    pub(crate) revision: i64,
    /// The host that serves the federation while this one stands by.
    pub(crate) standby_of: Option<String>,
}

impl StoreNote {
    /// The file, below the operator's directory.
    pub(crate) fn path(root: &Path) -> PathBuf {
        root.join("store.json")
    }

    /// What was noted; nothing yet where there is no file, or none that can be read.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        Ok(read_json(&Self::path(root))?.unwrap_or_default())
    }

    /// Notes it.
    #[cfg(feature = "database")]
    pub(crate) fn write(&self, root: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        write_atomic(&Self::path(root), &text, Access::Everyone)
    }
}
