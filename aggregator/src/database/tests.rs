//! The store on SQLite and a folder; `tests/tests/store.rs` has PostgreSQL and S3.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedlora_common::files::Access;
use tempfile::TempDir;

use super::*;
use crate::store::{Change, Mirror, Store};

/// A store, and hosts with a directory each.
struct Site {
    folder: TempDir,
    config: StoreConfig,
}

const AUTHORITY: &str = "00112233445566778899aabbccddeeff";

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |scheme: &str, name: &str| {
            let path = folder.path().join(name);
            StoreAddress::new(&format!("{scheme}://{}", path.display()))
        };
        let config = StoreConfig {
            database: Some(at("sqlite", "store.db")),
            blobs: Some(at("file", "objects")),
        };
        Self { folder, config }
    }

    fn host(&self, name: &str) -> PathBuf {
        let root = self.folder.path().join(name);
        fs::create_dir_all(root.join("members")).unwrap();
        root
    }

    fn connect(&self, root: &Path) -> SharedStore {
        SharedStore::connect(root, AUTHORITY, &self.config).unwrap()
    }

    fn serve(&self, root: &Path) -> (Arc<Database>, Store) {
        match self.connect(root).attempt().unwrap() {
            Attempt::Serves(database) => {
                let store = Store::folder(root).mirrored(database.clone());
                (database, store)
            }
            Attempt::StandsBy { host } => panic!("{host} serves"),
        }
    }

    fn objects(&self) -> usize {
        fn files(folder: &Path) -> usize {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let count = |path: &Path| match path.is_dir() {
                true => files(path),
                false => 1,
            };
            entries.map(|entry| count(&entry.path())).sum()
        }
        files(&self.folder.path().join("objects"))
    }
}

/// The kept files of a directory, with their content.
fn contents(root: &Path) -> Vec<(String, Vec<u8>)> {
    let files = super::folder::walk(root).unwrap().into_keys();
    files
        .map(|path| (path.clone(), fs::read(root.join(path)).unwrap()))
        .collect()
}

/// Changes of every kind; ends with a log that is synced and goes on.
fn change_all(store: &Store) {
    let at = |name: &str| store.root().join(name);
    let large: Vec<u8> = (0..INLINE as u32 * 3).map(|i| (i % 251) as u8).collect();
    fs::create_dir_all(at("runs/00/uploads")).unwrap();
    fs::create_dir_all(at("runs/00/journal")).unwrap();
    fs::create_dir_all(at("runs/00/adapters/round-0001")).unwrap();
    store
        .write(&at("members/a.json"), b"one", Access::Owner)
        .unwrap();
    store
        .write(&at("members/a.json"), b"two", Access::Owner)
        .unwrap();
    store
        .write(&at("runs/00/large"), &large, Access::Everyone)
        .unwrap();
    store
        .append(&at("runs/00/results.jsonl"), b"first\n")
        .unwrap();
    store
        .append(&at("runs/00/results.jsonl"), b"second\n")
        .unwrap();
    let upload = at("runs/00/uploads/m.masked");
    fs::write(&upload, &large).unwrap();
    store.adopt(&upload).unwrap();
    store
        .rename(&upload, &at("runs/00/journal/m.masked"))
        .unwrap();
    fs::write(at("runs/00/adapters/round-0001/weights"), &large).unwrap();
    fs::write(at("runs/00/adapters/round-0001/config"), "c").unwrap();
    store.adopt(&at("runs/00/adapters")).unwrap();
    let mut log = store.begin_log(&at("runs/00/journal/events.bin")).unwrap();
    log.append(b"abc").unwrap();
    log.sync().unwrap();
    log.append(b"def").unwrap();
    log.append(b"ghi").unwrap();
    log.sync().unwrap();
    drop(log);
    let mut log = store
        .go_on_with_log(&at("runs/00/journal/events.bin"), 5)
        .unwrap();
    log.append(b"!").unwrap();
    log.finish().unwrap();
    store
        .write(&at("members/b.json"), b"b", Access::Owner)
        .unwrap();
    store.remove(&at("members/b.json")).unwrap();
}

#[test]
fn programs_that_begin_at_once_with_a_new_database_make_its_schema_once() {
    for _ in 0..5 {
        let site = Site::new();
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for host in 0..8 {
                let root = site.host(&format!("{host}"));
                let (site, together) = (&site, &together);
                scope.spawn(move || {
                    together.wait();
                    site.connect(&root);
                });
            }
        });
    }
}

#[test]
fn another_host_gets_what_the_first_one_had() {
    let site = Site::new();
    let (one, other) = (site.host("one"), site.host("other"));
    let (database, store) = site.serve(&one);
    change_all(&store);
    let before = contents(&one);
    assert_eq!(
        fs::read(one.join("runs/00/journal/events.bin")).unwrap(),
        b"abcde!"
    );
    // What the other host has by itself and has from before goes; what is its own stays.
    fs::write(other.join("members/stale.json"), "old").unwrap();
    fs::write(other.join("members/lock"), "").unwrap();
    fs::write(other.join("ca.key"), "key").unwrap();
    let error = site.connect(&other).attempt();
    assert!(matches!(error, Ok(Attempt::StandsBy { .. })), "{error:?}");
    let masked = "runs/00/journal/m.masked";
    let but_masked = || before.iter().filter(|(path, _)| path != masked).cloned();
    assert_eq!(contents(&other), but_masked().collect::<Vec<_>>());

    database.release();
    let mode = |path: PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    let (database, store) = site.serve(&other);
    assert_eq!(contents(&other), before);
    assert_eq!(mode(other.join("members/a.json")), 0o600);
    assert_eq!(mode(other.join("runs/00/large")), 0o644);
    assert!(other.join("runs/00/uploads").is_dir());
    assert!(other.join("members/lock").exists() && other.join("ca.key").exists());
    let checked = site.connect(&other).check().unwrap();
    assert_eq!(checked.differences, []);
    assert_eq!((checked.masked_updates, checked.unknown_objects), (1, 0));
    assert_eq!(site.objects(), 3);

    // A round is over: its masked updates are nowhere.
    store.remove_folder(&other.join("runs/00/journal")).unwrap();
    database.release();
    let checked = site.connect(&other).check().unwrap();
    assert_eq!((checked.masked_updates, checked.loose_objects), (0, 0));
    assert_eq!(site.objects(), 2);
    // The first host follows.
    let (_database, _) = site.serve(&one);
    assert_eq!(contents(&one), contents(&other));
    assert!(!one.join("runs/00/journal").exists());
}

#[test]
fn one_that_was_superseded_changes_nothing() {
    let site = Site::new();
    let (one, other) = (site.host("one"), site.host("other"));
    let (_first, store) = site.serve(&one);
    let path = one.join("members/a.json");
    store.write(&path, b"mine", Access::Owner).unwrap();
    // The other takes it over, as from a process that has ended.
    let mut note = StoreNote::read(&one).unwrap();
    note.place = site.connect(&other).place();
    note.write(&other).unwrap();
    let (_second, others) = site.serve(&other);
    let theirs = other.join("members/a.json");
    others.write(&theirs, b"theirs", Access::Owner).unwrap();

    let error = store
        .write(&path, b"mine again", Access::Owner)
        .unwrap_err();
    assert!(
        error.to_string().contains("taken this federation over"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    let large = vec![7; INLINE + 1];
    assert!(store.write(&path, &large, Access::Owner).is_err());
    assert!(store.remove(&path).is_err());
    assert!(store.append(&one.join("members/log"), b"line\n").is_err());
    let checked = site.connect(&other).check().unwrap();
    assert_eq!(checked.differences, []);
    assert_eq!((checked.files, checked.unknown_objects), (1, 0));
}

#[test]
fn a_directory_is_imported_before_it_is_served() {
    let site = Site::new();
    let one = site.host("one");
    change_all(&Store::folder(&one));
    let before = contents(&one);
    let error = site.connect(&one).attempt().unwrap_err();
    assert!(matches!(error, StoreError::NotImported { .. }), "{error}");
    assert_eq!(contents(&one), before, "nothing is removed");
    let imported = site.connect(&one).import(false).unwrap();
    assert_eq!(imported.files, before.len());
    let again = site.connect(&one).import(false).unwrap_err();
    assert!(matches!(again, StoreError::Imported), "{again}");

    let other = site.host("other");
    let (database, store) = site.serve(&other);
    assert_eq!(contents(&other), before);
    // Logs go on behind what was imported.
    let line = other.join("runs/00/results.jsonl");
    store.append(&line, b"third\n").unwrap();
    store.truncate(&line, 9).unwrap();
    store.append(&line, b"!\n").unwrap();
    database.release();
    let (_database, _) = site.serve(&one);
    let text = fs::read_to_string(one.join("runs/00/results.jsonl")).unwrap();
    assert_eq!(text, "first\nsec!\n");
}

#[test]
fn a_database_of_another_federation_or_an_older_one_is_refused() {
    let site = Site::new();
    let one = site.host("one");
    let (database, store) = site.serve(&one);
    let path = one.join("members/a.json");
    store.write(&path, b"one", Access::Owner).unwrap();
    drop((store, database));
    let other = SharedStore::connect(&one, "ff", &site.config).unwrap_err();
    assert!(
        matches!(other, StoreError::OtherFederation { .. }),
        "{other}"
    );

    // The directory has seen more changes than the database has.
    let mut note = StoreNote::read(&one).unwrap();
    note.revision += 1000;
    note.write(&one).unwrap();
    let error = site.connect(&one).attempt().unwrap_err();
    assert!(matches!(error, StoreError::SetBack { .. }), "{error}");
    fs::write(&path, "two").unwrap();
    let error = site.connect(&one).attempt().unwrap_err();
    assert!(matches!(error, StoreError::SetBack { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"two", "nothing is taken back");
    site.connect(&one).import(true).unwrap();
    let other = site.host("other");
    let (_database, _) = site.serve(&other);
    assert_eq!(fs::read(other.join("members/a.json")).unwrap(), b"two");
}

#[test]
fn commands_change_what_their_host_serves_and_nothing_elsewhere() {
    let site = Site::new();
    let (one, other) = (site.host("one"), site.host("other"));
    // Nobody serves: a command has its own lease.
    let command = site.connect(&one).for_command().unwrap();
    let store = Store::folder(&one).mirrored(command);
    let path = one.join("members/a.json");
    store.write(&path, b"one", Access::Owner).unwrap();
    drop(store);
    let lock = fedlora_common::files::lock(&one.join("serve.lock")).unwrap();
    let (serving, _) = site.serve(&one);
    let command = site.connect(&one).for_command().unwrap();
    let store = Store::folder(&one).mirrored(command);
    store.write(&path, b"two", Access::Owner).unwrap();
    drop(store);
    serving
        .change(Path::new("members/b.json"), Change::Remove)
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    // On another directory the lease is another's; both are on one host here.
    fs::write(other.join("serve.lock"), "").unwrap();
    let checked = site.connect(&other).check().unwrap();
    assert!(checked.served_by.is_some());
    drop(lock);
}

#[test]
fn what_is_not_kept_is_refused() {
    let site = Site::new();
    let one = site.host("one");
    let (_database, store) = site.serve(&one);
    for name in ["ca.key", "aggregator.toml", "members/lock"] {
        let error = store.write(&one.join(name), b"key", Access::Owner);
        assert!(error.is_err(), "{name}");
        assert!(!one.join(name).exists());
    }
}

/// A command that ends notes the newest change while what keeps the lease does so too.
#[test]
fn the_newest_change_is_noted_by_several_at_once() {
    let site = Site::new();
    let root = site.host("one");
    let (database, store) = site.serve(&root);
    for round in 0..20 {
        let text = format!("{round}");
        let path = root.join("members/a.json");
        store.write(&path, text.as_bytes(), Access::Owner).unwrap();
        let noting = (0..8).map(|_| {
            let database = Arc::clone(&database);
            std::thread::spawn(move || {
                let writer = Arc::clone(&database.writer);
                let noted = database
                    .worker
                    .wait(async move { writer.note_revision().await });
                noted.unwrap()
            })
        });
        for noted in noting.collect::<Vec<_>>() {
            noted.join().unwrap().unwrap();
        }
        let writer = Arc::clone(&database.writer);
        let lease = database
            .worker
            .wait(async move { writer.sql.lease().await });
        let newest = lease.unwrap().unwrap().revision;
        assert_eq!(StoreNote::read(&root).unwrap().revision, newest);
    }
}
