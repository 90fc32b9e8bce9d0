//! Which files of an operator's directory are kept in the database: invitations, members, plans that
//! wait, runs, and the log. Keys, configuration, status, locks, and uploads that are under way are this host's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::tree;

/// The folders whose files are kept.
const KEPT: [&str; 5] = ["invitations", "log", "members", "queue", "runs"];
/// How the names of files end that are this host's all the same: half-written ones.
const LOCAL_ENDS: [&str; 2] = [".part", fedlora_common::files::TEMPORARY];
/// How masked updates' names end.
pub(super) const MASKED: &str = ".masked";

/// The path as the database has it, with `/` between names; nothing for one that is not kept there.
pub(super) fn kept(path: &Path) -> Option<String> {
    let names = tree::names(path)?;
    let (first, last) = (names.first()?, names.last()?);
    let local = LOCAL_ENDS.iter().any(|end| last.ends_with(end)) || *last == "lock";
    (names.len() > 1 && KEPT.contains(first) && !local).then(|| names.join("/"))
}

/// The kept files below `root`, with their lengths in bytes.
pub(super) fn walk(root: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    tree::visit(root, &KEPT, &mut |path, entry| {
        if let Some(name) = kept(path) {
            found.insert(name, entry.metadata()?.len());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Makes the folders that are there without files, and removes the others that are empty.
pub(super) fn tidy<'a>(root: &Path, kept: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mut needed: Vec<PathBuf> = Vec::new();
    for path in kept {
        let mut names = path.split('/');
        if let (Some("runs"), Some(run)) = (names.next(), names.next()) {
            let run = root.join("runs").join(run);
            if needed.last().is_none_or(|last| !last.starts_with(&run)) {
                needed.extend([run.join("adapters"), run.join("uploads")]);
            }
        }
    }
    for folder in &needed {
        fs::create_dir_all(folder)?;
    }
    // They are there from the beginning, whether anybody has been invited or not.
    for folder in ["invitations", "members"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for folder in KEPT {
        remove_empty(&root.join(folder), &needed)?;
    }
    Ok(())
}

/// Removes the empty folders below `folder`.
fn remove_empty(folder: &Path, needed: &[PathBuf]) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            continue;
        }
        remove_empty(&path, needed)?;
        if !needed.contains(&path) && fs::read_dir(&path)?.next().is_none() {
            fs::remove_dir(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_locks_and_paths_elsewhere_are_not_kept() {
        let of = |path: &str| kept(Path::new(path));
        for path in [
            "members/a.json",
            "runs/00/journal/round-0001-attempt-1/events.bin",
            "queue/00.json",
            "log/log.jsonl",
            "invitations/a.redeemed",
        ] {
            assert_eq!(of(path).as_deref(), Some(path));
        }
        for path in [
            "ca.key",
            "identity.key",
            "aggregator.toml",
            "status.json",
            "members",
            "members/lock",
            "log/lock",
            "members/a.json.tmp",
            "runs/00/uploads/x.masked.part",
            "../members/a.json",
            "members/../ca.key",
            "/members/a.json",
            "other/a",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn folders_are_there_where_a_run_needs_them_and_gone_where_nothing_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["runs/00/journal/round", "runs/01/uploads", "members"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("members/lock"), "").unwrap();
        tidy(root, ["runs/00/run.json"].into_iter()).unwrap();
        assert!(root.join("runs/00/uploads").is_dir());
        assert!(root.join("runs/00/adapters").is_dir());
        assert!(!root.join("runs/00/journal").exists());
        assert!(!root.join("runs/01").exists());
        assert!(root.join("members/lock").exists());
        assert!(root.join("invitations").is_dir());
    }
}
