//! A hub on this machine: the listing of a model, its files by HEAD and GET, small ones from the
//! hub's own port, large ones by a redirect to the port of a store, both with ranges.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Stands in redirects, as signed addresses have it: must not be shown.
pub(super) const SIGNATURE: &str = "X-Signature=d41d8cd9";

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at_store: bool,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) range: Option<String>,
    pub(super) authorization: Option<String>,
}

/// What is served, and how it goes wrong.
#[derive(Default)]
pub(super) struct Served {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Names in the listing that are not files.
    pub(super) listed: Vec<String>,
    /// Bytes after which each of the next large answers breaks off.
    pub(super) cuts: Vec<usize>,
    /// The store answers with the whole file whatever is asked for.
    pub(super) no_ranges: bool,
    /// The store's contents where they differ from what is announced.
    pub(super) other: BTreeMap<String, Vec<u8>>,
    /// The next answers' status and `X-Error-Code`.
    pub(super) refusals: Vec<(u16, &'static str)>,
    /// Refuses the listing's files, not the listing.
    pub(super) refuse_files: bool,
    /// An ETag for all files.
    pub(super) etag: Option<String>,
    /// Where large files are, in place of the store.
    pub(super) store: Option<String>,
    pub(super) seen: Vec<Seen>,
}

pub(super) struct Hub {
    pub(super) endpoint: String,
    served: Arc<Mutex<Served>>,
}

impl Hub {
    /// Serves the files as `o/n`.
    pub(super) fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let served = Arc::new(Mutex::new(Served {
            files,
            ..Served::default()
        }));
        let hub = TcpListener::bind("127.0.0.1:0").expect("a port");
        let store = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", hub.local_addr().expect("bound"));
        let store_at = format!("http://{}", store.local_addr().expect("bound"));
        for (listener, at_store) in [(hub, false), (store, true)] {
            let served = Arc::clone(&served);
            let store_at = store_at.clone();
            // Ends with the test's process.
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let served = Arc::clone(&served);
                    let store_at = store_at.clone();
                    thread::spawn(move || answer(stream, &served, at_store, &store_at));
                }
            });
        }
        Self { endpoint, served }
    }

    pub(super) fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().expect("no test panics with it")
    }

    /// What was asked for since the last call.
    pub(super) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.served().seen)
    }
}

pub(super) fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".gguf")
}

pub(super) fn etag(file: &str, content: &[u8]) -> String {
    if is_large(file) {
        hex::encode(digest(&SHA256, content))
    } else {
        let mut blob = format!("blob {}\0", content.len()).into_bytes();
        blob.extend_from_slice(content);
        hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob))
    }
}

/// One request, one answer.
fn answer(stream: TcpStream, served: &Mutex<Served>, at_store: bool, store_at: &str) -> Option<()> {
    let mut lines = BufReader::new(&stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut seen = Seen {
        at_store,
        method,
        path,
        range: None,
        authorization: None,
    };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.trim().to_owned()),
            "authorization" => seen.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut served = served.lock().ok()?;
    served.seen.push(seen.clone());
    let is_file = seen.path.contains("/resolve/");
    if !at_store && (is_file || !served.refuse_files) && !served.refusals.is_empty() {
        let (status, code) = served.refusals.remove(0);
        return head(
            &stream,
            status,
            &[("X-Error-Code", code), ("Content-Length", "0")],
        );
    }
    if at_store {
        return from_store(stream, served, &seen);
    }
    if seen.path.starts_with("/api/models/o/n/revision/") {
        let names: BTreeSet<&String> = served.files.keys().chain(&served.listed).collect();
        let siblings: Vec<_> = names
            .into_iter()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let body =
            serde_json::json!({ "id": "o/n", "sha": COMMIT, "siblings": siblings }).to_string();
        return whole(&stream, body.as_bytes());
    }
    let Some((file, content)) = seen
        .path
        .strip_prefix(&format!("/o/n/resolve/{COMMIT}/"))
        .and_then(|file| served.files.get_key_value(file))
    else {
        let code = if is_file {
            "EntryNotFound"
        } else {
            "RepoNotFound"
        };
        return head(
            &stream,
            404,
            &[("X-Error-Code", code), ("Content-Length", "0")],
        );
    };
    let etag = served.etag.clone().unwrap_or_else(|| etag(file, content));
    let length = content.len().to_string();
    if is_large(file) {
        let store = served.store.as_deref().unwrap_or(store_at);
        return head(
            &stream,
            302,
            &[
                ("X-Repo-Commit", COMMIT),
                ("ETag", "\"of-the-redirect\""),
                ("X-Linked-Etag", &format!("\"{etag}\"")),
                ("X-Linked-Size", &length),
                ("Location", &format!("{store}/lfs/{file}?{SIGNATURE}")),
                ("Content-Length", "0"),
            ],
        );
    }
    head(
        &stream,
        200,
        &[
            ("X-Repo-Commit", COMMIT),
            ("ETag", &format!("\"{etag}\"")),
            ("Content-Length", &length),
        ],
    )?;
    if seen.method == "GET" {
        (&stream).write_all(content).ok()?;
    }
    Some(())
}

fn from_store(stream: TcpStream, mut served: MutexGuard<'_, Served>, seen: &Seen) -> Option<()> {
    let file = seen
        .path
        .strip_prefix("/lfs/")?
        .split('?')
        .next()?
        .to_owned();
    let content = served
        .other
        .get(&file)
        .or_else(|| served.files.get(&file))?
        .clone();
    let start = match &seen.range {
        Some(range) if !served.no_ranges => range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()?,
        _ => 0,
    };
    let rest = &content[start..];
    let length = rest.len().to_string();
    if start > 0 {
        let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
        head(
            &stream,
            206,
            &[("Content-Length", &length), ("Content-Range", &range)],
        )?;
    } else {
        head(&stream, 200, &[("Content-Length", &length)])?;
    }
    let end = if served.cuts.is_empty() {
        rest.len()
    } else {
        served.cuts.remove(0).min(rest.len())
    };
    drop(served);
    (&stream).write_all(&rest[..end]).ok()
}

fn whole(stream: &TcpStream, body: &[u8]) -> Option<()> {
    head(stream, 200, &[("Content-Length", &body.len().to_string())])?;
    (&mut &*stream).write_all(body).ok()
}

fn head(mut stream: &TcpStream, status: u16, headers: &[(&str, &str)]) -> Option<()> {
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).ok()
}
