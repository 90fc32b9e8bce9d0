//! Room on a disk.

use std::path::Path;

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What a program without privileges can still write.
    pub free: u64,
    /// All of it.
    pub size: u64,
}

/// The room on the file system that a path lies on; nothing where the system does not tell.
pub fn room(path: &Path) -> Option<Room> {
    #[cfg(target_os = "linux")]
    {
        let told = rustix::fs::statvfs(path).ok()?;
        Some(Room {
            free: told.f_bavail.saturating_mul(told.f_frsize),
            size: told.f_blocks.saturating_mul(told.f_frsize),
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_room_and_a_missing_one_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let found = room(folder.path()).unwrap();
        assert!(found.size > 0 && found.free <= found.size, "{found:?}");
        assert_eq!(room(&folder.path().join("missing")), None);
    }
}
