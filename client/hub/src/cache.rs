//! The cache, laid out as the Python tools have it, so that both find what the other fetched:
//!
//! ```text
//! models--owner--name/refs/REVISION        the commit that a branch or tag was at
//! models--owner--name/blobs/ETAG           contents, by the hub's name of them
//! models--owner--name/blobs/ETAG.incomplete    a transfer that can be resumed
//! models--owner--name/snapshots/COMMIT/FILE    links to contents
//! .locks/models--owner--name/ETAG.lock     one transfer of a file at a time
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::error::HubError;
use super::name::{HubName, escapes, is_commit, is_gguf, is_plain_file};
use super::select::{INDEX, SINGLE, first_part, shards};

/// Largest index that is read: about a hundred bytes a tensor, and no model has a million.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// One repository's place in the cache.
pub(super) struct ModelCache {
    root: PathBuf,
    folder: String,
    revision: String,
    repo: CacheRepo,
}

impl ModelCache {
    pub(super) fn new(root: &Path, name: &HubName) -> Self {
        let repo = Repo::with_revision(name.repo(), RepoType::Model, name.revision().to_owned());
        Self {
            root: root.to_owned(),
            folder: repo.folder_name(),
            revision: name.revision().to_owned(),
            repo: Cache::new(root.to_owned()).repo(repo),
        }
    }

    /// The commit that the revision was at when it was last fetched.
    pub(super) fn commit(&self) -> Option<String> {
        if is_commit(&self.revision) {
            return Some(self.revision.clone());
        }
        let path = self
            .root
            .join(&self.folder)
            .join("refs")
            .join(&self.revision);
        let text = fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Notes the commit that the revision is at.
    pub(super) fn set_commit(&self, commit: &str) -> Result<(), HubError> {
        if is_commit(&self.revision) {
            return Ok(());
        }
        self.repo
            .create_ref(commit)
            .map_err(|error| HubError::disk(self.root.join(&self.folder).join("refs"), 0, error))
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// Where contents lie. `etag` must have passed [`is_blob_name`].
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repo.blob_path(etag)
    }

    /// Where contents lie as long as they are not whole.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.repo.blob_path(&format!("{etag}.incomplete"))
    }

    /// Opens the lock of some contents; it is free again when the file is dropped.
    pub(super) fn lock_file(&self, etag: &str) -> Result<File, HubError> {
        let folder = self.root.join(".locks").join(&self.folder);
        let path = folder.join(format!("{etag}.lock"));
        fs::create_dir_all(&folder)
            .and_then(|()| File::options().create(true).append(true).open(&path))
            .map_err(|error| HubError::disk(path, 0, error))
    }

    /// Makes contents appear as a commit's file.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let pointer = self.snapshot(commit).join(file);
        let blob = self.blob(etag);
        let linked = || {
            if let Some(folder) = pointer.parent() {
                fs::create_dir_all(folder)?;
            }
            match fs::remove_file(&pointer) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            #[cfg(unix)]
            {
                // Relative, so that the cache can be moved: out of the snapshot's folders.
                let mut target = PathBuf::from("../..");
                for _ in 1..Path::new(file).components().count() {
                    target.push("..");
                }
                std::os::unix::fs::symlink(target.join("blobs").join(etag), &pointer)
            }
            #[cfg(not(unix))]
            fs::hard_link(&blob, &pointer).or_else(|_| fs::copy(&blob, &pointer).map(drop))
        };
        linked().map_err(|error| {
            let size = fs::metadata(&blob).map_or(0, |data| data.len());
            HubError::disk(&pointer, size, error)
        })
    }

    /// A commit's files as a Hugging Face folder, if all that a base needs is there.
    pub(super) fn whole_folder(&self, commit: &str) -> Option<PathBuf> {
        let folder = self.snapshot(commit);
        let has = |file: &str| folder.join(file).is_file();
        let weights = has(SINGLE)
            || read_index(&folder.join(INDEX))
                .and_then(|index| shards(&index).ok())
                .is_some_and(|files| files.iter().all(|file| has(file)));
        (has("config.json") && has("tokenizer.json") && weights).then_some(folder)
    }

    /// A commit's GGUF file: the one that is named, or the only one.
    pub(super) fn gguf(&self, commit: &str, file: Option<&str>) -> Option<PathBuf> {
        let folder = self.snapshot(commit);
        if let Some(file) = file {
            return Some(folder.join(file)).filter(|path| path.is_file());
        }
        let mut found = Vec::new();
        gguf_files(&folder, &mut found);
        let names: Vec<String> = found
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        match first_part(&names) {
            Some(first) => Some(PathBuf::from(first)),
            None => found.pop().filter(|_| found.is_empty()),
        }
    }
}

/// All GGUF files of a snapshot, in whatever folder.
fn gguf_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // Of the entry, not of what it leads to: folders of a snapshot are no links.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            gguf_files(&path, found);
        } else if is_gguf(&entry.file_name().to_string_lossy()) && path.is_file() {
            found.push(path);
        }
    }
}

/// Reads an index of reasonable size.
pub(super) fn read_index(path: &Path) -> Option<Vec<u8>> {
    let size = fs::metadata(path).ok()?.len();
    if size > MAX_INDEX_BYTES {
        return None;
    }
    fs::read(path).ok()
}

/// Whether the hub's name of contents can name a file in the cache.
pub(super) fn is_blob_name(etag: &str) -> bool {
    etag.len() <= 128 && !etag.contains('/') && is_plain_file(etag) && !escapes(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_contents_stay_in_their_folder() {
        assert!(is_blob_name("ce013625030ba8dba906f756967f9e9ca394464a"));
        assert!(is_blob_name("5f3-7a"));
        for etag in [
            "",
            "..",
            "../x",
            "a/b",
            "/x",
            ".x",
            "a\\b",
            "a b",
            &"a".repeat(129),
        ] {
            assert!(!is_blob_name(etag), "{etag:?}");
        }
    }

    #[test]
    fn links_lead_to_the_contents_from_any_depth() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = ModelCache::new(root.path(), &"o/n".parse().expect("a name"));
        let commit = "a".repeat(40);
        fs::create_dir_all(cache.blob("e1").parent().expect("a parent")).expect("made");
        fs::write(cache.blob("e1"), b"content").expect("written");
        for file in ["x.gguf", "deep/er/x.gguf"] {
            for _ in 0..2 {
                cache.link(&commit, file, "e1").expect("linked");
                let read = fs::read(cache.snapshot(&commit).join(file)).expect("read");
                assert_eq!(read, b"content");
            }
        }
        assert!(cache.gguf(&commit, None).is_none(), "there are two");
        fs::remove_file(cache.snapshot(&commit).join("x.gguf")).expect("removed");
        assert!(cache.gguf(&commit, None).is_some());
        assert!(cache.gguf(&commit, Some("deep/er/x.gguf")).is_some());
        assert!(cache.gguf(&commit, Some("other.gguf")).is_none());
        assert!(cache.whole_folder(&commit).is_none());
    }

    #[test]
    fn a_torn_ref_is_none() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = ModelCache::new(root.path(), &"o/n".parse().expect("a name"));
        assert_eq!(cache.commit(), None);
        let commit = "0123456789".repeat(4);
        cache.set_commit(&commit).expect("written");
        assert_eq!(cache.commit(), Some(commit));
        fs::write(root.path().join("models--o--n/refs/main"), "../../x").expect("written");
        assert_eq!(cache.commit(), None);
    }
}
