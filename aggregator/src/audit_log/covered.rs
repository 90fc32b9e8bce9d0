//! Which files the log speaks of: what was decided and what came of it. Not masked updates, the journal of
//! an open run and what replays stand on, which the signed results prove by themselves; keys,
//! configuration, status and locks, which are a host's own.

use std::io;
use std::path::Path;

use crate::store::tree;

/// The folders with such files.
const FOLDERS: [&str; 4] = ["invitations", "members", "queue", "runs"];
/// Parts of a run's folder without.
const APART: [&str; 3] = ["journal", "uploads", "audit"];
/// How the names of other files end: half-written ones, and moments of the server's optimizer.
const ENDS: [&str; 3] = [".part", fedlora_common::files::TEMPORARY, ".state"];

/// The path as the log has it, with `/` between names; nothing for one that it does not speak of.
pub(super) fn covers(path: &Path) -> Option<String> {
    let names = tree::names(path)?;
    let (first, last) = (*names.first()?, *names.last()?);
    let apart = first == "runs" && names.get(2).is_some_and(|part| APART.contains(part));
    let other = ENDS.iter().any(|end| last.ends_with(end)) || last == "lock";
    (names.len() > 1 && FOLDERS.contains(&first) && !apart && !other).then(|| names.join("/"))
}

/// Such files below `root`, in order.
pub(super) fn walk(root: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    tree::visit(root, &FOLDERS, &mut |path, _| {
        found.extend(covers(path));
        Ok(())
    })?;
    found.sort();
    Ok(found)
}

/// Whether a file may lie there without the log: an adapter whose run was given up before it was
/// published. Nobody takes an adapter that no signed result names.
pub(super) fn may_be_extra(path: &str) -> bool {
    let mut names = path.split('/');
    names.next() == Some("runs") && names.nth(1) == Some("adapters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_and_outcomes_are_covered_and_nothing_else() {
        for path in [
            "members/hospital-a.json",
            "invitations/hospital-a.redeemed",
            "queue/00.json",
            "runs/00/results.jsonl",
            "runs/00/adapters/round-0001/adapter_model.safetensors",
            "runs/00/evidence/round-0001-attempt-1-member-3.json",
        ] {
            assert_eq!(covers(Path::new(path)).as_deref(), Some(path));
        }
        for path in [
            "aggregator.toml",
            "ca.key",
            "log/log.jsonl",
            "members/lock",
            "members",
            "runs/00/journal/events.bin",
            "runs/00/uploads/3.masked",
            "runs/00/audit/round-0001/events.bin",
            "runs/00/adapters/round-0001.state",
            "queue/00.json.tmp",
            "../members/a.json",
        ] {
            assert_eq!(covers(Path::new(path)), None, "{path}");
        }
        assert!(may_be_extra(
            "runs/00/adapters/round-0001/adapter_config.json"
        ));
        assert!(!may_be_extra("runs/00/results.jsonl"));
        assert!(!may_be_extra("members/adapters/x.json"));
    }
}
