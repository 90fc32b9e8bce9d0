//! A file that grows: written piece by piece, durable at each [`Log::sync`].

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Change, Store};

/// The end of a file that grows.
#[derive(Debug)]
pub(crate) struct Log {
    store: Store,
    path: PathBuf,
    file: File,
    length: u64,
}

impl Store {
    /// Begins a file that must not be there yet.
    ///
    /// # Errors
    /// Any I/O error.
    pub(crate) fn begin_log(&self, path: &Path) -> io::Result<Log> {
        let file = File::create_new(path)?;
        self.tell(path, Change::Append { at: 0, bytes: &[] })?;
        Ok(Log {
            store: self.clone(),
            path: path.to_owned(),
            file,
            length: 0,
        })
    }

    /// Goes on after the first `length` bytes of a file; what stands behind them goes.
    ///
    /// # Errors
    /// Any I/O error.
    pub(crate) fn go_on_with_log(&self, path: &Path, length: u64) -> io::Result<Log> {
        self.tell(path, Change::Truncate { length })?;
        let mut file = File::options().write(true).open(path)?;
        file.set_len(length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Log {
            store: self.clone(),
            path: path.to_owned(),
            file,
            length,
        })
    }
}

impl Log {
    /// Adds bytes; durably from the next [`sync`](Self::sync) on.
    ///
    /// # Errors
    /// Any I/O error; the file may then end within the bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.length;
        let (store, file) = (&self.store, &mut self.file);
        store.make(&self.path, Change::Append { at, bytes }, || {
            file.write_all(bytes)
        })?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was added durable.
    ///
    /// # Errors
    /// Any I/O error.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let sync = || self.file.sync_data();
        self.store.make(&self.path, Change::Sync, sync)
    }

    /// Makes the whole file durable.
    ///
    /// # Errors
    /// Any I/O error.
    pub(crate) fn finish(self) -> io::Result<()> {
        let sync = || self.file.sync_all();
        self.store.make(&self.path, Change::Sync, sync)
    }
}
