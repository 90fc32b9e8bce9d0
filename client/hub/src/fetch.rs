//! From a name on the hub to files in the cache.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::cache::{ModelCache, read_index};
use super::config::HubConfig;
use super::error::HubError;
use super::name::{HubName, is_commit};
use super::progress::{FetchEvent, FetchProgress};
use super::select::{INDEX, SINGLE, Selection, ShardError, parts, select, shards};
use super::transfer::{FileInfo, HubClient, host, network};
use super::verify::Check;

/// Bytes between two reports.
const REPORT_BYTES: u64 = 1 << 20;

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}

/// Brings what is missing of a model into the cache. Blocks; may be called from anywhere.
///
/// The hub is asked which commit the revision is at, unless it is named by a commit that is here
/// whole or `HF_HUB_OFFLINE` is set; where it cannot be reached, what was fetched before is used.
///
/// # Errors
/// What keeps the model from being had.
pub fn fetch(
    name: &HubName,
    config: &HubConfig,
    progress: &mut dyn FetchProgress,
) -> Result<Fetched, HubError> {
    let cache = ModelCache::new(&config.cache, name);
    let here = || {
        cache
            .commit()
            .and_then(|commit| cached(&cache, name, &commit))
    };
    if config.offline {
        return here().ok_or_else(|| HubError::Offline {
            name: name.clone(),
            cache: config.cache.clone(),
        });
    }
    if is_commit(name.revision())
        && let Some(fetched) = here()
    {
        return Ok(fetched);
    }
    let (events, watched) = mpsc::channel();
    std::thread::scope(|scope| {
        // A thread of its own: the caller's may belong to a runtime, which none may block.
        let work = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| HubError::Setup(error.to_string()))?;
            let client = HubClient::new(config, name, events)?;
            runtime.block_on(fetch_from(&client, &cache, name))
        });
        for event in watched {
            progress.event(&event);
        }
        work.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What is in the cache, if it is whole.
fn cached(cache: &ModelCache, name: &HubName, commit: &str) -> Option<Fetched> {
    let gguf = || cache.gguf(commit, name.file()).map(Fetched::Gguf);
    match name.file() {
        Some(_) => gguf(),
        None => cache
            .whole_folder(commit)
            .map(Fetched::Folder)
            .or_else(gguf),
    }
}

async fn fetch_from(
    client: &HubClient,
    cache: &ModelCache,
    name: &HubName,
) -> Result<Fetched, HubError> {
    let before = cache
        .commit()
        .and_then(|commit| Some((cached(cache, name, &commit)?, commit)));
    let (commit, files) = match client.listing(before.is_none()).await {
        Ok(listing) => listing,
        Err(error @ (HubError::Network { .. } | HubError::Status { .. })) => {
            let Some((fetched, commit)) = before else {
                return Err(error);
            };
            client.say(FetchEvent::Stale {
                why: error.to_string(),
                commit,
            });
            return Ok(fetched);
        }
        Err(error) => return Err(error),
    };
    let job = Job {
        client,
        cache,
        name,
        commit: &commit,
    };
    let folder = cache.snapshot(&commit);
    let fetched = match select(name, &files)? {
        Selection::Gguf(file) => {
            let mut parts = parts(&file);
            // A part that is not there is missed by whoever opens the model.
            parts.retain(|part| *part == file || files.contains(part));
            job.bring(&parts).await?;
            Fetched::Gguf(folder.join(file))
        }
        Selection::Folder { beside, sharded } => {
            for file in &beside {
                job.bring_one(file).await?;
            }
            let weights = if sharded {
                job.bring_one(INDEX).await?;
                job.shards(&folder.join(INDEX), &files)?
            } else {
                vec![SINGLE.to_owned()]
            };
            // Last, so that a folder with weights has all else.
            job.bring(&weights).await?;
            Fetched::Folder(folder)
        }
    };
    cache.set_commit(&commit)?;
    Ok(fetched)
}

/// One commit's files.
struct Job<'a> {
    client: &'a HubClient,
    cache: &'a ModelCache,
    name: &'a HubName,
    commit: &'a str,
}

impl Job<'_> {
    /// The weights' files by the index, all of which the repository must have.
    fn shards(&self, index: &Path, files: &[String]) -> Result<Vec<String>, HubError> {
        let protocol = |what: String| HubError::Protocol {
            host: "the hub".to_owned(),
            what,
        };
        let bytes = read_index(index)
            .ok_or_else(|| protocol(format!("{INDEX} is too large or cannot be read")))?;
        let shards = shards(&bytes).map_err(|error| match error {
            ShardError::Format => protocol(format!("{INDEX} is not an index of weights")),
            ShardError::Path(path) => HubError::Path { path },
        })?;
        match shards.iter().find(|shard| !files.contains(shard)) {
            Some(shard) => Err(HubError::NoFile {
                repo: self.name.repo(),
                file: shard.clone(),
                others: Vec::new(),
            }),
            None => Ok(shards.into_iter().collect()),
        }
    }

    fn is_here(&self, file: &str) -> bool {
        self.cache.snapshot(self.commit).join(file).is_file()
    }

    /// A small file, without a word.
    async fn bring_one(&self, file: &str) -> Result<(), HubError> {
        if self.is_here(file) {
            return Ok(());
        }
        let info = self.client.info(self.commit, file).await?;
        self.place(file, &info, &mut |_| {}).await
    }

    /// The weights, shown.
    async fn bring(&self, files: &[String]) -> Result<(), HubError> {
        let mut missing = Vec::new();
        for file in files {
            if !self.is_here(file) {
                missing.push((file, self.client.info(self.commit, file).await?));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        self.client.say(FetchEvent::Planned {
            name: self.name.to_string(),
            files: missing.len(),
            bytes: missing
                .iter()
                .fold(0, |sum: u64, (_, info)| sum.saturating_add(info.size)),
        });
        for (file, info) in missing {
            self.place(file, &info, &mut |event| self.client.say(event))
                .await?;
            self.client.say(FetchEvent::Fetched {
                file: file.clone(),
                size: info.size,
            });
        }
        Ok(())
    }

    /// Gets the contents, unless they are here under another file's or commit's name, and links
    /// them.
    async fn place(
        &self,
        file: &str,
        info: &FileInfo,
        say: &mut dyn FnMut(FetchEvent),
    ) -> Result<(), HubError> {
        let blob = self.cache.blob(&info.etag);
        let whole = || fs::metadata(&blob).is_ok_and(|data| data.len() == info.size);
        if !whole() {
            let lock = self.cache.lock_file(&info.etag)?;
            if lock.try_lock().is_err() {
                self.client.say(FetchEvent::Waiting {
                    file: file.to_owned(),
                });
                lock.lock()
                    .map_err(|error| HubError::disk(&blob, info.size, error))?;
            }
            // Whoever held the lock may have brought it.
            if !whole() {
                self.download(file, info, say).await?;
            }
        }
        self.cache.link(self.commit, file, &info.etag)
    }

    async fn download(
        &self,
        file: &str,
        info: &FileInfo,
        say: &mut dyn FnMut(FetchEvent),
    ) -> Result<(), HubError> {
        let path = self.cache.incomplete(&info.etag);
        let mut partial = Partial::open(&path, info)?;
        say(FetchEvent::File {
            file: file.to_owned(),
            start: partial.length,
            size: info.size,
        });
        let mut failures = 0;
        while partial.length < info.size {
            let before = partial.length;
            match self.receive(file, info, &mut partial, say).await {
                Ok(()) => {}
                Err(error @ HubError::Network { .. }) => {
                    // A line that is slow and breaks often still gets there.
                    failures = if partial.length > before {
                        1
                    } else {
                        failures + 1
                    };
                    self.client.pause(failures, Duration::ZERO, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        if !partial.check.holds() {
            fs::remove_file(&path).map_err(|error| HubError::disk(&path, 0, error))?;
            return Err(HubError::Hash {
                file: file.to_owned(),
            });
        }
        let blob = self.cache.blob(&info.etag);
        partial
            .out
            .sync_all()
            .and_then(|()| fs::rename(&path, &blob))
            .map_err(|error| HubError::disk(&blob, 0, error))
    }

    /// One answer's worth of a file.
    async fn receive(
        &self,
        file: &str,
        info: &FileInfo,
        partial: &mut Partial,
        say: &mut dyn FnMut(FetchEvent),
    ) -> Result<(), HubError> {
        let (start, mut response) = self
            .client
            .open(self.commit, file, partial.length, info.size)
            .await?;
        if start != partial.length {
            *partial = Partial::anew(&partial.path, info)?;
            say(FetchEvent::File {
                file: file.to_owned(),
                start: 0,
                size: info.size,
            });
        }
        let host = host(response.url());
        let mut unsaid = 0;
        let outcome = loop {
            let part = match response.chunk().await {
                Ok(Some(part)) => part,
                Ok(None) => break Ok(()),
                Err(error) => break Err(network(&host, error)),
            };
            if part.len() as u64 > info.size - partial.length {
                break Err(HubError::Protocol {
                    host: host.clone(),
                    what: format!("more of {file} than was announced"),
                });
            }
            if let Err(error) = partial.append(&part, info.size) {
                break Err(error);
            }
            unsaid += part.len() as u64;
            if unsaid >= REPORT_BYTES {
                say(FetchEvent::Received { bytes: unsaid });
                unsaid = 0;
            }
        };
        if unsaid > 0 {
            say(FetchEvent::Received { bytes: unsaid });
        }
        outcome?;
        if partial.length < info.size {
            return Err(HubError::Network {
                host,
                why: format!("{file} ended early"),
            });
        }
        Ok(())
    }
}

/// A file on its way.
struct Partial {
    path: PathBuf,
    out: File,
    length: u64,
    check: Check,
}

impl Partial {
    /// Goes on with what an earlier try left, if that can be the beginning of this file.
    fn open(path: &Path, info: &FileInfo) -> Result<Self, HubError> {
        let failed = |error| HubError::disk(path, info.size, error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let length = fs::metadata(path).map_or(0, |data| data.len());
        if length == 0 || length > info.size {
            return Self::anew(path, info);
        }
        let mut check = Check::new(&info.etag, info.size);
        let mut file = File::open(path).map_err(failed)?;
        let mut buffer = vec![0; 1 << 20];
        let mut length = 0;
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => {
                    check.update(&buffer[..read]);
                    length += read as u64;
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            out: File::options().append(true).open(path).map_err(failed)?,
            length,
            check,
        })
    }

    /// Begins at the beginning.
    fn anew(path: &Path, info: &FileInfo) -> Result<Self, HubError> {
        Ok(Self {
            path: path.to_owned(),
            out: File::create(path).map_err(|error| HubError::disk(path, info.size, error))?,
            length: 0,
            check: Check::new(&info.etag, info.size),
        })
    }

    fn append(&mut self, bytes: &[u8], size: u64) -> Result<(), HubError> {
        self.out
            .write_all(bytes)
            .map_err(|error| HubError::disk(&self.path, size - self.length, error))?;
        self.check.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}
