//! What an aggregator keeps: files below the operator's directory. Every change that has to outlive a
//! crash is made here, and is durable when the call returns.
//!
//! | module | owns |
//! |---|---|
//! | `log` | a file that grows, event by event |
//! | `tree` | the files below the directory, and their names |
//!
//! A [`Mirror`] hears of each change before the folder has it, and may refuse it: nothing in the folder is
//! ever ahead of the mirror.

mod log;
pub(crate) mod tree;

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use fedlora_common::files::{Access, sync_parent, write_atomic};
use serde::Serialize;

pub(crate) use log::Log;

/// One change of what is kept. Paths are relative to the operator's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// The file gets this content, whole or not at all.
    Write {
        /// The content.
        bytes: &'a [u8],
        /// Who may read it.
        access: Access,
    },
    /// The file lies in the folder already, whole, and is kept from now on.
    Adopt {
        /// Where it lies.
        at: &'a Path,
    },
    /// The file grows by these bytes; durably from the next [`Sync`](Self::Sync) on.
    Append {
        /// Its length before.
        at: u64,
        /// What is added.
        bytes: &'a [u8],
    },
    /// What was appended to the file has to be durable.
    Sync,
    /// The file is cut to this length.
    Truncate {
        /// The length in bytes.
        length: u64,
    },
    /// The file gets another name.
    Rename {
        /// Its new path.
        to: &'a Path,
    },
    /// The file goes, if it was kept.
    Remove,
    /// The folder goes, with all that is in it.
    RemoveFolder,
}

/// Something that holds what the folder holds.
pub trait Mirror: Debug + Send + Sync {
    /// Makes a change to `path`, durably, before the folder has it.
    ///
    /// # Errors
    /// The change is not made, in the folder neither.
    fn change(&self, path: &Path, change: Change<'_>) -> io::Result<()>;

    /// Hears that the folder has the change too. By default nothing follows from it.
    fn changed(&self, path: &Path, change: Change<'_>) {
        let _ = (path, change);
    }
}

/// Something that enters each change in a book of its own.
pub(crate) trait Recorder: Debug + Send + Sync {
    /// Enters a change of the file at `path`, relative to the store's folder, before it is made. Until
    /// what it gives is dropped nobody else enters one; nothing where the change is not entered.
    ///
    /// # Errors
    /// The change is not made.
    fn enter(&self, store: &Store, path: &Path, change: Change<'_>) -> io::Result<Option<File>>;

    /// The change that was entered last is made.
    fn made(&self);
}

/// The folder of an operator, and what mirrors it.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Path>,
    mirror: Option<Arc<dyn Mirror>>,
    recorder: Option<Arc<dyn Recorder>>,
}

impl Store {
    /// A folder that nothing mirrors.
    pub fn folder(root: &Path) -> Self {
        Self {
            root: root.into(),
            mirror: None,
            recorder: None,
        }
    }

    /// The same folder with a mirror.
    #[must_use]
    pub fn mirrored(self, mirror: Arc<dyn Mirror>) -> Self {
        Self {
            mirror: Some(mirror),
            ..self
        }
    }

    /// The same folder, with a recorder of its changes.
    #[must_use]
    pub(crate) fn recorded(self, recorder: Arc<dyn Recorder>) -> Self {
        Self {
            recorder: Some(recorder),
            ..self
        }
    }

    /// The operator's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// Any I/O error; the old content stays.
    pub fn write(&self, path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
        self.make(path, Change::Write { bytes, access }, || {
            write_atomic(path, bytes, access)
        })
    }

    /// Writes a JSON document whole or not at all.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_json(&self, path: &Path, document: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(document)?;
        self.write(path, &text, Access::Everyone)
    }

    /// Keeps a file that somebody else has written whole, or every file in a folder.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn adopt(&self, path: &Path) -> io::Result<()> {
        if self.mirror.is_none() && self.recorder.is_none() {
            return Ok(());
        }
        if !path.is_dir() {
            return self.make(path, Change::Adopt { at: path }, || Ok(()));
        }
        for entry in fs::read_dir(path)? {
            self.adopt(&entry?.path())?;
        }
        Ok(())
    }

    /// Adds a line to a file, made where it is missing.
    ///
    /// # Errors
    /// Any I/O error; the file may then end within the line.
    pub fn append(&self, path: &Path, line: &[u8]) -> io::Result<()> {
        let at = match fs::metadata(path) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let change = Change::Append { at, bytes: line };
        // Before the file is made: a crash in between leaves none that nobody knows.
        let entered = self.enter(path, change)?;
        self.tell(path, change)?;
        let mut file = File::options().create(true).append(true).open(path)?;
        self.make(path, Change::Sync, || {
            file.write_all(line)?;
            file.sync_all()?;
            match at {
                0 => sync_parent(path),
                _ => Ok(()),
            }
        })?;
        self.leave(entered);
        Ok(())
    }

    /// Cuts a file.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        self.make(path, Change::Truncate { length }, || {
            let file = File::options().write(true).open(path)?;
            file.set_len(length)?;
            file.sync_all()
        })
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// Any I/O error; the file keeps its name.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let name = self.relative(to)?;
        self.make(from, Change::Rename { to: name }, || {
            fs::rename(from, to)?;
            sync_parent(to)
        })
    }

    /// Removes a file; gives whether there was one.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn remove(&self, path: &Path) -> io::Result<bool> {
        self.make(path, Change::Remove, || match fs::remove_file(path) {
            Ok(()) => sync_parent(path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// Removes a folder with all that is in it; gives whether there was one.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn remove_folder(&self, path: &Path) -> io::Result<bool> {
        self.make(path, Change::RemoveFolder, || {
            match fs::remove_dir_all(path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Makes a change: first in the mirror, then by `make` in the folder.
    fn make<T>(
        &self,
        path: &Path,
        change: Change<'_>,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let entered = self.enter(path, change)?;
        self.tell(path, change)?;
        let made = make()?;
        self.leave(entered);
        if let Some(mirror) = &self.mirror {
            mirror.changed(self.relative(path)?, change);
        }
        Ok(made)
    }

    fn enter(&self, path: &Path, change: Change<'_>) -> io::Result<Option<File>> {
        match &self.recorder {
            None => Ok(None),
            Some(recorder) => recorder.enter(self, self.relative(path)?, change),
        }
    }

    fn leave(&self, entered: Option<File>) {
        if let (Some(recorder), Some(_)) = (&self.recorder, &entered) {
            recorder.made();
        }
    }

    fn tell(&self, path: &Path, change: Change<'_>) -> io::Result<()> {
        match &self.mirror {
            None => Ok(()),
            Some(mirror) => mirror.change(self.relative(path)?, change),
        }
    }

    fn relative<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        path.strip_prefix(&self.root).map_err(|_| {
            let (path, root) = (path.display(), self.root.display());
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path} is not in {root}"),
            )
        })
    }
}

#[cfg(test)]
mod tests;
