//! Files written whole or not at all, and private where they hold keys.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner alone (mode 0600): private keys.
    Owner,
    /// Everyone the directory lets in (mode 0644).
    Everyone,
}

/// The end of a temporary file's name. What a crash leaves under it is replaced by the next write.
pub const TEMPORARY: &str = ".tmp";

/// Writes `bytes` to `path` so that a reader, and a restart after a power cut, sees the old
/// content or the new, never a part: a temporary file beside it, synced, renamed, and the
/// directory synced. The temporary file carries its final mode from the first byte.
///
/// # Errors
/// Any I/O error, without the path; the temporary file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    replace(path, access, |temporary| fs::write(temporary, bytes))
        .map_err(|source| unwritten(&source))
}

/// [`write_atomic`] for a writer that wants a path: `write` gets that of an empty temporary file.
///
/// # Errors
/// Those of `write`, and any I/O error, without the path; the temporary file is removed.
pub fn replace(
    path: &Path,
    access: Access,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    // One name, not a random one: what a crash leaves there is replaced, and does not pile up.
    let leftover = beside(path, TEMPORARY)?;
    match fs::remove_file(&leftover) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let name = leftover.file_name().unwrap_or_default();
    let mut builder = tempfile::Builder::new();
    builder.prefix(name).rand_bytes(0);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(match access {
            Access::Owner => 0o600,
            Access::Everyone => 0o644,
        }));
    }
    #[cfg(not(unix))]
    let _ = access;
    let temporary = builder.tempfile_in(parent(path))?;
    write(temporary.path())?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    sync_parent(path)
}

/// Makes a folder, and those above it, where they are missing: a new one at `path` only its owner may
/// look into (mode 0700), whatever the process's mask says.
///
/// # Errors
/// Any I/O error.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|_| !path.exists()) {
        fs::create_dir_all(parent)?;
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt;
            builder.mode(0o700);
        }
        match builder.create(path) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
    }
    fs::create_dir_all(path)
}

/// Locks the file at `path`, made where it is missing, for this process until the handle is dropped.
/// `None` where another process holds it. The system frees it where a process ends in whatever way.
///
/// # Errors
/// Any I/O error.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = lock_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Locks the file at `path`, made where it is missing, until the handle is dropped. Waits while another
/// process or handle holds it.
///
/// # Errors
/// Any I/O error.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = lock_file(path)?;
    file.lock()?;
    Ok(file)
}

fn lock_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    options.open(path)
}

/// Whether another process holds the lock on the file at `path`; not where there is no such file.
///
/// # Errors
/// Any other I/O error.
pub fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes a rename or a new name in `path`'s directory durable.
///
/// # Errors
/// Any I/O error.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `path` with `suffix` added to its file name.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for a path that names no file.
pub fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
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

/// Says what failed; callers name the file.
fn unwritten(source: &io::Error) -> io::Error {
    io::Error::new(source.kind(), format!("cannot be written: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_new_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = folder.path().join("a/b");
        create_private_folder(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        // One that is there stays as its owner has it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        create_private_folder(&path).unwrap();
        assert_eq!(mode(&path), 0o750);
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(create_private_folder(&folder.path().join("file")).is_err());
    }

    #[test]
    fn a_lock_is_held_by_one_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!is_locked(&path).unwrap());
        let held = try_lock(&path).unwrap();
        assert!(held.is_some() && is_locked(&path).unwrap());
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(!is_locked(&path).unwrap());
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn replaces_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.key");
        std::fs::write(dir.path().join("ca.key.tmp"), b"left by a crash").unwrap();
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
    fn a_failure_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no-such-folder").join("ca.pem");
        let error = write_atomic(&missing, b"x", Access::Everyone).unwrap_err();
        assert!(error.to_string().contains("cannot be written"), "{error}");
        assert!(write_atomic(Path::new("/"), b"x", Access::Everyone).is_err());
    }
}
