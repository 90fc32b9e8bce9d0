//! The files below an operator's directory, and their names as records have them.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Component, Path};

/// The names of a relative path, from the first folder to the file; nothing for a path that leads
/// elsewhere, or is not Unicode.
pub(crate) fn names(path: &Path) -> Option<Vec<&str>> {
    let name = |part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    };
    path.components().map(name).collect()
}

/// Visits all files in these folders of `root`, of which any may be missing, each with its relative path.
///
/// # Errors
/// Any I/O error, also of the visit.
pub(crate) fn visit(
    root: &Path,
    folders: &[&str],
    seen: &mut dyn FnMut(&Path, &DirEntry) -> io::Result<()>,
) -> io::Result<()> {
    for folder in folders {
        visit_folder(root, &root.join(folder), seen)?;
    }
    Ok(())
}

fn visit_folder(
    root: &Path,
    folder: &Path,
    seen: &mut dyn FnMut(&Path, &DirEntry) -> io::Result<()>,
) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            visit_folder(root, &path, seen)?;
        } else if kind.is_file()
            && let Ok(path) = path.strip_prefix(root)
        {
            seen(path, &entry)?;
        }
    }
    Ok(())
}
