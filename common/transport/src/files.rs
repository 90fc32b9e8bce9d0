//! Files written whole or not at all, and private where they hold keys.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner alone (mode 0600): private keys.
    Owner,
    /// Everyone the directory lets in (mode 0644).
    Everyone,
}

/// Writes `bytes` to `path` so that a reader, and a restart after a power cut, sees the old
/// content or the new, never a part: a temporary file beside it, synced, renamed, and the
/// directory synced. The temporary file carries its final mode from the first byte.
///
/// # Errors
/// Any I/O error, with the path in its text; the temporary file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let temporary = beside(path, ".new")?;
    let written = create(&temporary, access)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        // Best effort: the error that matters is the one being returned.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(|source| with_path(path, &source))
}

/// Makes a rename or a new name in `path`'s directory durable.
///
/// # Errors
/// Any I/O error.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

/// `path` with `suffix` added to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut name = path
        .file_name()
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} names no file", path.display()),
            )
        })?
        .to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}

fn create(path: &Path, access: Access) -> io::Result<File> {
    // Left over from a crash: nobody else writes here, and a mode set at creation is certain.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match access {
            Access::Owner => 0o600,
            Access::Everyone => 0o644,
        });
    }
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

fn with_path(path: &Path, source: &io::Error) -> io::Error {
    io::Error::new(
        source.kind(),
        format!("cannot write {}: {source}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        std::fs::write(dir.path().join("ca.key.new"), b"left by a crash").unwrap();
        write_atomic(&path, b"one", Access::Owner).unwrap();
        write_atomic(&path, b"two", Access::Owner).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        write_atomic(&path, b"key", Access::Owner).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_failure_names_the_path_and_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no-such-folder").join("ca.pem");
        let error = write_atomic(&missing, b"x", Access::Everyone).unwrap_err();
        assert!(error.to_string().contains("no-such-folder"), "{error}");
        assert!(write_atomic(Path::new("/"), b"x", Access::Everyone).is_err());
    }
}
