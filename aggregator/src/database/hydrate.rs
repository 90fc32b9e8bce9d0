//! Makes the directory what the database says: fetches what is missing or differs, removes what is
//! gone. On a host that stands by it follows the one that serves; masked updates stay away from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fedlora_common::files::{Access, replace};

use super::files::Kept;
use super::folder::{MASKED, kept, tidy, walk};
use super::objects::{Objects, digest_of_file};
use super::sql::Sql;
use super::{Difference, DifferenceKind, StoreError};

/// The files that are known to be the database's, with the change that made them so.
pub(super) type Known = BTreeMap<String, i64>;

/// How much of the database the directory is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything: nothing changes meanwhile.
    Whole,
    /// Everything but masked updates, while another host goes on changing it.
    Following,
}

/// Makes the directory at `root` what the database says.
pub(super) async fn hydrate(
    (sql, objects): (&Sql, &Objects),
    root: &Path,
    known: &mut Known,
    extent: Extent,
) -> Result<(), StoreError> {
    let mut files = sql.files().await?;
    if extent == Extent::Following {
        files.retain(|one| !one.path.ends_with(MASKED));
    }
    for one in &files {
        // What the database says must not lead out of the directory.
        if kept(Path::new(&one.path)).as_deref() != Some(one.path.as_str()) {
            let shown = one.path.escape_debug();
            return Err(sql.refused(format!("'{shown}' is no path of a file that is kept")));
        }
    }
    let unreadable = |error: io::Error| StoreError::io(root, &error);
    let there = walk(root).map_err(unreadable)?;
    let wanted: BTreeSet<_> = files.iter().map(|one| one.path.as_str()).collect();
    for path in there.keys().filter(|path| !wanted.contains(&***path)) {
        let path = root.join(path);
        fs::remove_file(&path).map_err(|error| StoreError::io(&path, &error))?;
    }
    known.retain(|path, _| wanted.contains(&**path));
    for one in &files {
        let length = there.get(&one.path).copied();
        let same_length = length == Some(one.length as u64);
        if same_length && known.get(&one.path) == Some(&one.revision) {
            continue;
        }
        let path = root.join(&one.path);
        if !same_length || !has_content(sql, one, &path).await? {
            match (fetch((sql, objects), one, &path).await?, extent) {
                (true, _) => {}
                // It has been removed or replaced just now: the next look shows it.
                (false, Extent::Following) => continue,
                (false, Extent::Whole) => {
                    let reason = format!("{} is not what the database says, or gone", one.path);
                    return Err(sql.refused(reason));
                }
            }
        }
        let written = SystemTime::UNIX_EPOCH + Duration::from_millis(one.written.max(0) as u64);
        let dated = File::options().append(true).open(&path);
        let dated = dated.and_then(|file| file.set_modified(written));
        dated.map_err(|error| StoreError::io(&path, &error))?;
        known.insert(one.path.clone(), one.revision);
    }
    let paths = files.iter().map(|one| one.path.as_str());
    tidy(root, paths).map_err(unreadable)
}

/// What differs between directory and database, by path.
pub(super) async fn compare(
    (sql, objects): (&Sql, &Objects),
    root: &Path,
) -> Result<Vec<Difference>, StoreError> {
    let files = sql.files().await?;
    let objects: BTreeSet<_> = objects.list().await?.into_iter().collect();
    let there = walk(root).map_err(|error| StoreError::io(root, &error))?;
    let wanted: BTreeSet<_> = files.iter().map(|one| one.path.as_str()).collect();
    let mut found = Vec::new();
    let mut differs = |path: &str, kind| {
        found.push(Difference {
            path: path.to_owned(),
            kind,
        });
    };
    for one in &files {
        let path = root.join(&one.path);
        match there.get(&one.path) {
            None => differs(&one.path, DifferenceKind::Missing),
            Some(length) => {
                if *length != one.length as u64 || !has_content(sql, one, &path).await? {
                    differs(&one.path, DifferenceKind::Differs);
                }
            }
        }
        if !one.object.is_empty() && !objects.contains(&one.object) {
            differs(&one.path, DifferenceKind::ObjectMissing);
        }
    }
    for path in there.keys().filter(|path| !wanted.contains(&***path)) {
        differs(path, DifferenceKind::NotInDatabase);
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Whether the file at `path`, which has the right length, has the content that the database says.
async fn has_content(sql: &Sql, file: &Kept, path: &Path) -> Result<bool, StoreError> {
    if !file.has_pieces() {
        let at = path.to_owned();
        let digest = tokio::task::spawn_blocking(move || digest_of_file(&at)).await;
        let digest = digest.map_err(|_| StoreError::Ended)?;
        let digest = digest.map_err(|error| StoreError::io(path, &error))?;
        // An empty log has no digest.
        return Ok(file.length == 0 || digest.digest.to_string() == file.digest);
    }
    let bytes = fs::read(path).map_err(|error| StoreError::io(path, &error))?;
    let (base, grown) = bytes.split_at(file.base as usize);
    let same_base = file.base == 0 || super::objects::digest_of(base).to_string() == file.digest;
    Ok(same_base && sql.pieces(&file.path, file.base).await? == grown)
}

/// Writes the file at `path` as the database has it; gives whether the database still has it so.
async fn fetch(
    (sql, objects): (&Sql, &Objects),
    file: &Kept,
    path: &Path,
) -> Result<bool, StoreError> {
    let unwritten = |error: io::Error| StoreError::io(path, &error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(unwritten)?;
    }
    let beside = path.with_extension("fetched.part");
    let whole = whole((sql, objects), file, &beside).await;
    let access = match file.private {
        true => Access::Owner,
        false => Access::Everyone,
    };
    let done = match whole {
        Ok(true) => replace(path, access, |to| copy_content(&beside, to))
            .map(|()| true)
            .map_err(unwritten),
        other => other,
    };
    // It is there where the content is an object, or was.
    let _ = fs::remove_file(&beside);
    done
}

/// Copies content alone, without the mode.
fn copy_content(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut to = File::options().write(true).open(to)?;
    io::copy(&mut from, &mut to).map(drop)
}

/// Writes a file's whole content to `to`.
async fn whole(
    (sql, objects): (&Sql, &Objects),
    file: &Kept,
    to: &Path,
) -> Result<bool, StoreError> {
    use std::io::Write;
    let unwritten = |error: io::Error| StoreError::io(to, &error);
    // Others must not read it while it is written, whoever may in the end.
    drop(private(to).map_err(unwritten)?);
    if file.object.is_empty() {
        let Some(content) = sql.content(&file.path).await? else {
            return Ok(false);
        };
        let digest = super::objects::digest_of(&content).to_string();
        if content.len() as i64 != file.base || (file.base > 0 && digest != file.digest) {
            return Ok(false);
        }
        fs::write(to, content).map_err(unwritten)?;
    } else {
        let Some(stored) = objects.get(&file.object, to).await? else {
            return Ok(false);
        };
        if stored.length as i64 != file.base || stored.digest.to_string() != file.digest {
            return Ok(false);
        }
    }
    if file.has_pieces() {
        let pieces = sql.pieces(&file.path, file.base).await?;
        if pieces.len() as i64 != file.length - file.base {
            return Ok(false);
        }
        let grown = File::options().append(true).open(to);
        let grown = grown.and_then(|mut file| file.write_all(&pieces));
        grown.map_err(unwritten)?;
    }
    Ok(true)
}

/// An empty file that only its owner may read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.create(true).write(true).truncate(true).open(path)
}

/// A whole file as the database has it, in memory: of logs, which are small.
pub(super) async fn read_whole(
    (sql, objects): (&Sql, &Objects),
    file: &Kept,
    beside: &Path,
) -> Result<Vec<u8>, StoreError> {
    let to = beside.with_extension("read.part");
    let whole = whole((sql, objects), file, &to).await;
    let read = match whole {
        Ok(true) => fs::read(&to).map_err(|error| StoreError::io(&to, &error)),
        Ok(false) => Err(sql.refused(format!("{} is not whole", file.path))),
        Err(error) => Err(error),
    };
    let _ = fs::remove_file(&to);
    read
}
