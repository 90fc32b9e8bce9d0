//! Fetching from a hub on this machine.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use self::server::{COMMIT, Hub, SIGNATURE, Seen};
use super::config::Transfer;
use super::fetch::{Fetched, fetch};
use super::progress::{FetchEvent, FetchProgress};
use super::{HubConfig, HubError, Remedy};
use fedlora_data::TextPipeline;
use fedlora_model::BaseWeights;

const TOKEN: &str = "hf_TheTokenThatNobodySees";
const WEIGHTS: &str = "model.safetensors";
const SHARD: &str = "model-00001-of-00001.safetensors";
/// A tokenizer of three words, for the golden checkpoint has none.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
"normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
"model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "one": 1, "two": 2}, "unk_token": "[UNK]"}}"#;

/// The golden checkpoint, as a model on the hub.
fn tiny() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny");
    let mut files = BTreeMap::new();
    for file in ["config.json", "generation_config.json", WEIGHTS] {
        files.insert(
            file.to_owned(),
            fs::read(folder.join(file)).expect("a golden file"),
        );
    }
    files.insert("tokenizer.json".to_owned(), TOKENIZER.as_bytes().to_vec());
    files.insert("README.md".to_owned(), b"not needed".to_vec());
    files.insert("pytorch_model.bin".to_owned(), b"not needed".to_vec());
    files
}

/// The same with an index over one file.
fn sharded() -> BTreeMap<String, Vec<u8>> {
    let mut files = tiny();
    let weights = files.remove(WEIGHTS).expect("weights");
    // A safetensors file begins with the length of its header, which names the tensors.
    let (length, rest) = weights.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&rest[..length]).expect("a header");
    let names = header.into_keys().filter(|name| name != "__metadata__");
    let map: BTreeMap<String, &str> = names.map(|name| (name, SHARD)).collect();
    let index = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
    files.insert(SHARD.to_owned(), weights);
    files.insert(format!("{WEIGHTS}.index.json"), index.into_bytes());
    files
}

struct Client {
    config: HubConfig,
    cache: TempDir,
}

impl Client {
    fn of(endpoint: &str) -> Self {
        let cache = tempfile::tempdir().expect("a folder");
        let config = HubConfig::from_vars(|name| match name {
            "HF_ENDPOINT" => Some(endpoint.into()),
            "HF_HOME" => Some(cache.path().into()),
            "HF_TOKEN" => Some(TOKEN.into()),
            _ => None,
        });
        let mut config = config.expect("a configuration");
        config.transfer = Transfer {
            retries: 0,
            pause: Duration::from_millis(1),
            ..Transfer::default()
        };
        Self { config, cache }
    }

    fn fetch(&self, name: &str) -> (Result<Fetched, HubError>, Vec<FetchEvent>) {
        let mut events = Watched::default();
        let outcome = fetch(&name.parse().expect("a name"), &self.config, &mut events);
        let shown = format!("{outcome:?} {:?} {:?}", events.0, self.config);
        let shown = match &outcome {
            Ok(_) => shown,
            Err(error) => format!("{shown} {error}"),
        };
        assert!(!shown.contains(TOKEN), "{shown}");
        assert!(!shown.contains(SIGNATURE), "{shown}");
        (outcome, events.0)
    }

    fn refused(&self, name: &str) -> HubError {
        self.fetch(name).0.expect_err("a refusal")
    }

    /// All files below the cache, by what their path ends with.
    fn holds(&self, end: &str) -> bool {
        fn walk(folder: &Path, end: &str) -> bool {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .any(|entry| {
                    let path = entry.path();
                    path.to_string_lossy().ends_with(end) || (path.is_dir() && walk(&path, end))
                })
        }
        walk(self.cache.path(), end)
    }

    fn repo(&self) -> std::path::PathBuf {
        self.cache.path().join("hub/models--o--n")
    }
}

#[derive(Default)]
struct Watched(Vec<FetchEvent>);

impl FetchProgress for Watched {
    fn event(&mut self, event: &FetchEvent) {
        self.0.push(event.clone());
    }
}

fn gets(seen: &[Seen]) -> Vec<&str> {
    seen.iter()
        .filter(|seen| seen.method == "GET")
        .map(|seen| seen.path.as_str())
        .collect()
}

fn folder(fetched: Fetched) -> std::path::PathBuf {
    match fetched {
        Fetched::Folder(folder) => folder,
        Fetched::Gguf(_) => panic!("not a folder"),
    }
}

fn assert_loads(folder: &Path) {
    BaseWeights::load(folder).expect("the weights load");
    let text = TextPipeline::from_folder(folder).expect("the tokenizer loads");
    assert_eq!(text.vocabulary(), 3);
}

#[test]
fn a_model_is_fetched_whole_into_the_shared_layout_and_loads() {
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    let (fetched, events) = client.fetch("o/n");
    let folder = folder(fetched.expect("fetched"));
    assert_eq!(folder, client.repo().join("snapshots").join(COMMIT));
    assert_loads(&folder);
    for file in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        WEIGHTS,
    ] {
        let content = &hub.served().files[file];
        let link = fs::read_link(folder.join(file)).expect("a link");
        let blob = Path::new("../../blobs").join(server::etag(file, content));
        assert_eq!(link, blob, "{file}");
    }
    for end in ["README.md", "pytorch_model.bin", ".incomplete"] {
        assert!(!client.holds(end), "{end}");
    }
    let head = fs::read_to_string(client.repo().join("refs/main")).expect("a ref");
    assert_eq!(head, COMMIT);

    let size = hub.served().files[WEIGHTS].len() as u64;
    assert!(events.contains(&FetchEvent::Planned {
        name: "o/n".to_owned(),
        files: 1,
        bytes: size,
    }));
    let received: u64 = events
        .iter()
        .map(|event| match event {
            FetchEvent::Received { bytes } => *bytes,
            _ => 0,
        })
        .sum();
    assert_eq!(received, size);
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_the_store() {
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    client.fetch("o/n").0.expect("fetched");
    let seen = hub.seen();
    let bearer = format!("Bearer {TOKEN}");
    assert!(
        seen.iter().any(|seen| seen.at_store),
        "the weights are in the store"
    );
    for seen in &seen {
        let expected = (!seen.at_store).then_some(bearer.as_str());
        assert_eq!(seen.authorization.as_deref(), expected, "{}", seen.path);
    }
}

#[test]
fn what_is_here_is_not_fetched_again() {
    let hub = Hub::start(tiny());
    let mut client = Client::of(&hub.endpoint);
    let first = client.fetch("o/n").0.expect("fetched");
    hub.seen();
    assert_eq!(client.fetch("o/n").0.expect("here"), first);
    assert_eq!(gets(&hub.seen()), ["/api/models/o/n/revision/main"]);
    // A commit stays what it is.
    let by_commit = format!("o/n@{COMMIT}");
    assert_eq!(client.fetch(&by_commit).0.expect("here"), first);
    assert!(hub.seen().is_empty());
    client.config.offline = true;
    assert_eq!(client.fetch("o/n").0.expect("here"), first);
    assert_eq!(client.fetch(&by_commit).0.expect("here"), first);
    assert!(hub.seen().is_empty());
}

#[test]
fn a_revision_is_one_part_of_the_address() {
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    client.fetch("o/n@refs/pr/1").0.expect("fetched");
    assert_eq!(hub.seen()[0].path, "/api/models/o/n/revision/refs%2Fpr%2F1");
    let commit = fs::read_to_string(client.repo().join("refs/refs/pr/1")).expect("a ref");
    assert_eq!(commit, COMMIT);
}

#[test]
fn weights_in_several_files_are_found_by_the_index() {
    let hub = Hub::start(sharded());
    let mut client = Client::of(&hub.endpoint);
    let folder = folder(client.fetch("o/n").0.expect("fetched"));
    assert_loads(&folder);
    client.config.offline = true;
    assert!(client.fetch("o/n").0.is_ok());
    fs::remove_file(folder.join(SHARD)).expect("removed");
    assert!(matches!(client.refused("o/n"), HubError::Offline { .. }));
}

#[test]
fn a_transfer_that_broke_goes_on_at_the_right_byte() {
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    hub.served().cuts = vec![1000];
    let error = client.refused("o/n");
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    assert!(client.holds(".incomplete"));
    assert!(!client.repo().join("refs/main").exists());
    hub.seen();

    let (fetched, events) = client.fetch("o/n");
    assert_loads(&folder(fetched.expect("fetched")));
    let ranges: Vec<_> = hub
        .seen()
        .into_iter()
        .filter_map(|seen| seen.at_store.then_some(seen.range).flatten())
        .collect();
    assert_eq!(ranges, ["bytes=1000-"]);
    let begun = events
        .iter()
        .any(|event| matches!(event, FetchEvent::File { start: 1000, .. }));
    assert!(begun, "{events:?}");
}

#[test]
fn a_line_that_breaks_is_taken_up_within_one_fetch() {
    let hub = Hub::start(tiny());
    let mut client = Client::of(&hub.endpoint);
    client.config.transfer.retries = 2;
    hub.served().cuts = vec![1000, 500, 0];
    let (fetched, events) = client.fetch("o/n");
    assert_loads(&folder(fetched.expect("fetched")));
    let seen = hub.seen();
    let ranges: Vec<_> = seen
        .iter()
        .filter(|seen| seen.at_store)
        .map(|seen| seen.range.as_deref())
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=1000-"),
            Some("bytes=1500-"),
            Some("bytes=1500-")
        ]
    );
    let retries = events
        .iter()
        .filter(|event| matches!(event, FetchEvent::Retrying { .. }));
    assert_eq!(retries.count(), 3);
}

#[test]
fn a_store_without_ranges_makes_it_begin_anew() {
    let hub = Hub::start(tiny());
    let mut client = Client::of(&hub.endpoint);
    client.config.transfer.retries = 1;
    hub.served().cuts = vec![1000];
    hub.served().no_ranges = true;
    assert_loads(&folder(client.fetch("o/n").0.expect("fetched")));
}

#[test]
fn what_is_not_the_announced_content_is_refused_and_removed() {
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    let mut other = hub.served().files[WEIGHTS].clone();
    let last = other.last_mut().expect("bytes");
    *last ^= 1;
    hub.served().other.insert(WEIGHTS.to_owned(), other);
    let error = client.refused("o/n");
    assert!(
        matches!(&error, HubError::Hash { file } if file == WEIGHTS),
        "{error}"
    );
    assert!(!client.holds(".incomplete") && !client.holds(WEIGHTS));
    let announced = server::etag(WEIGHTS, &hub.served().files[WEIGHTS]);
    assert!(!client.repo().join("blobs").join(announced).exists());
    // The next try gets it right.
    hub.served().other.clear();
    assert_loads(&folder(client.fetch("o/n").0.expect("fetched")));
}

#[test]
fn no_more_is_taken_than_was_announced() {
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    let mut other = hub.served().files[WEIGHTS].clone();
    other.extend_from_slice(&[0; 100_000]);
    hub.served().other.insert(WEIGHTS.to_owned(), other);
    let error = client.refused("o/n");
    assert!(matches!(error, HubError::Protocol { .. }), "{error}");
    let size = hub.served().files[WEIGHTS].len() as u64;
    for entry in fs::read_dir(client.repo().join("blobs"))
        .expect("blobs")
        .flatten()
    {
        assert!(entry.metadata().expect("a file").len() <= size);
    }
}

#[test]
fn paths_that_lead_out_of_the_cache_are_refused() {
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    hub.served().listed = vec!["../../escape.safetensors".to_owned()];
    assert!(matches!(client.refused("o/n"), HubError::Path { .. }));

    let mut files = sharded();
    let index = r#"{"weight_map": {"a": "../../escape.safetensors"}}"#;
    files.insert(format!("{WEIGHTS}.index.json"), index.as_bytes().to_vec());
    let hub = Hub::start(files);
    let client = Client::of(&hub.endpoint);
    let error = client.refused("o/n");
    assert!(matches!(error, HubError::Path { .. }), "{error}");

    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    hub.served().etag = Some("../../escape".to_owned());
    assert!(matches!(client.refused("o/n"), HubError::Protocol { .. }));
    assert!(!client.holds("escape"));
}

#[test]
fn plain_http_to_another_machine_is_not_followed() {
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    hub.served().store = Some("http://store.invalid".to_owned());
    let error = client.refused("o/n");
    assert!(
        matches!(&error, HubError::Redirect { target } if target == "http://store.invalid"),
        "{error}"
    );
}

#[test]
fn refusals_say_what_would_help() {
    fn is(matches: fn(&HubError) -> bool) -> fn(&HubError) -> bool {
        matches
    }
    let cases = [
        (
            401,
            "GatedRepo",
            "o/n is gated",
            is(|error| {
                matches!(error, HubError::Gated { .. })
                    && matches!(error.remedy(), Some(Remedy::AcceptLicence { .. }))
            }),
        ),
        (
            403,
            "GatedRepo",
            "o/n is gated",
            is(|error| {
                matches!(error, HubError::Gated { .. })
                    && matches!(error.remedy(), Some(Remedy::AcceptLicence { .. }))
            }),
        ),
        (
            401,
            "RepoNotFound",
            "no model o/n, or it is private",
            is(|error| matches!(error, HubError::NoRepo { .. })),
        ),
        (
            404,
            "RepoNotFound",
            "no model o/n, or it is private",
            is(|error| matches!(error, HubError::NoRepo { .. })),
        ),
        (
            401,
            "",
            "the hub refuses the token for o/n",
            is(|error| {
                matches!(error, HubError::Unauthorized { .. })
                    && error.remedy() == Some(Remedy::CheckToken)
            }),
        ),
        (
            404,
            "RevisionNotFound",
            "o/n has no revision 'main'",
            is(|error| matches!(error, HubError::NoRevision { .. })),
        ),
        (
            418,
            "",
            "answers with status 418",
            is(|error| matches!(error, HubError::Status { .. })),
        ),
        (
            503,
            "",
            "answers with status 503",
            is(|error| matches!(error, HubError::Status { .. })),
        ),
    ];
    for (status, code, text, kind) in cases {
        let hub = Hub::start(tiny());
        let client = Client::of(&hub.endpoint);
        hub.served().refusals = vec![(status, code)];
        let error = client.refused("o/n");
        assert!(error.to_string().contains(text), "{status} {code}: {error}");
        assert!(kind(&error), "{status} {code}: {error:?}");
    }
    // A gated model's listing is for all, its files are not.
    let hub = Hub::start(tiny());
    let mut client = Client::of(&hub.endpoint);
    client.config.token = None;
    hub.served().refusals = vec![(401, "GatedRepo")];
    hub.served().refuse_files = true;
    assert!(matches!(
        client.refused("o/n"),
        HubError::Gated { token: false, .. }
    ));
    assert!(hub.seen().iter().all(|seen| seen.authorization.is_none()));
}

#[test]
fn a_busy_hub_is_asked_again() {
    let hub = Hub::start(tiny());
    let mut client = Client::of(&hub.endpoint);
    client.config.transfer.retries = 2;
    hub.served().refusals = vec![(503, ""), (429, "")];
    let (fetched, events) = client.fetch("o/n");
    assert_loads(&folder(fetched.expect("fetched")));
    assert!(matches!(
        events[..2],
        [FetchEvent::Retrying { .. }, FetchEvent::Retrying { .. }]
    ));
}

#[test]
fn offline_nothing_is_asked_for() {
    let hub = Hub::start(tiny());
    let mut client = Client::of(&hub.endpoint);
    client.config.offline = true;
    let error = client.refused("o/n");
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(hub.seen().is_empty());
}

#[test]
fn without_a_hub_what_was_fetched_before_is_used() {
    let hub = Hub::start(tiny());
    let mut client = Client::of(&hub.endpoint);
    let first = client.fetch("o/n").0.expect("fetched");
    // A port that was free a moment ago, with nobody behind it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let nobody = Client::of(&format!("http://127.0.0.1:{port}"));
    client.config.endpoint = nobody.config.endpoint.clone();
    let (fetched, events) = client.fetch("o/n");
    assert_eq!(fetched.expect("here"), first);
    assert!(matches!(&events[..], [FetchEvent::Stale { commit, .. }] if commit == COMMIT));
    let error = nobody.refused("o/n");
    assert!(matches!(error, HubError::Network { .. }), "{error}");
}

#[test]
fn one_of_several_gguf_files_is_named() {
    let files = ["README.md", "q4.gguf", "q8.gguf"]
        .map(|file| (file.to_owned(), format!("GGUF {file}").into_bytes()));
    let hub = Hub::start(files.into());
    let mut client = Client::of(&hub.endpoint);
    assert!(matches!(client.refused("o/n"), HubError::WhichGguf { .. }));
    let Fetched::Gguf(path) = client.fetch("o/n:q8.gguf").0.expect("fetched") else {
        panic!("not a file");
    };
    assert_eq!(fs::read(path).expect("read"), b"GGUF q8.gguf");
    assert!(!client.holds("q4.gguf"));
    client.config.offline = true;
    assert!(client.fetch("o/n:q8.gguf").0.is_ok());
    assert!(matches!(
        client.refused("o/n:q4.gguf"),
        HubError::Offline { .. }
    ));
}

#[test]
fn a_file_is_fetched_by_one_process_at_a_time() {
    /// Lets go of the lock once somebody waits for it.
    struct Holder(Option<fs::File>);
    impl FetchProgress for Holder {
        fn event(&mut self, event: &FetchEvent) {
            if matches!(event, FetchEvent::Waiting { file } if file == WEIGHTS) {
                self.0 = None;
            }
        }
    }
    let hub = Hub::start(tiny());
    let client = Client::of(&hub.endpoint);
    let name = "o/n".parse().expect("a name");
    let etag = server::etag(WEIGHTS, &hub.served().files[WEIGHTS]);
    let cache = super::cache::ModelCache::new(&client.config.cache, &name);
    let lock = cache.lock_file(&etag).expect("opened");
    lock.lock().expect("locked");
    let mut holder = Holder(Some(lock));
    let fetched = fetch(&name, &client.config, &mut holder);
    assert_loads(&folder(fetched.expect("fetched")));
    assert!(holder.0.is_none(), "somebody waited");
}
