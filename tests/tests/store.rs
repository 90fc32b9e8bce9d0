//! The store behind an operator's directory on PostgreSQL: what the unit tests show of SQLite, and a
//! server that is stopped meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedlora_aggregator::database::{Attempt, Database, SharedStore, StoreAddress, StoreConfig};
use fedlora_aggregator::store::{Change, Mirror, Store};
use fedlora_common::files::Access;
use fedlora_tests::{
    Federation, Finished, INSTITUTIONS, Postgres, Running, S3Server, StoreKind, TestStore, program,
    wait_for,
};
use serde_json::{Value, json};

const AUTHORITY: &str = "00112233445566778899aabbccddeeff";

fn connect(store: &TestStore, root: &Path) -> SharedStore {
    let config = StoreConfig {
        database: Some(StoreAddress::new(&store.database())),
        blobs: Some(StoreAddress::new(&store.blobs())),
    };
    fs::create_dir_all(root.join("members")).expect("a folder can be made");
    SharedStore::connect(root, AUTHORITY, &config).expect("the store answers")
}

fn serve(store: &TestStore, root: &Path) -> (Arc<Database>, Store) {
    match connect(store, root).attempt().expect("the store answers") {
        Attempt::Serves(database) => {
            let folder = Store::folder(root).mirrored(database.clone());
            (database, folder)
        }
        Attempt::StandsBy { host } => panic!("{host} serves"),
    }
}

/// All files below a folder, with their content; but what the host keeps for itself.
fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("below it").to_owned();
            match path.is_dir() {
                true => folders.push(path),
                false if name == Path::new("store.json") => {}
                false => found.push((name, fs::read(&path).expect("a file can be read"))),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn postgresql_keeps_every_change_and_gives_it_to_another_host() {
    if !Postgres::is_installed() {
        return;
    }
    let store = TestStore::new(StoreKind::Postgres);
    let hosts = tempfile::tempdir().expect("a temporary folder");
    let (one, other) = (hosts.path().join("one"), hosts.path().join("other"));
    let (database, folder) = serve(&store, &one);
    let at = |name: &str| one.join(name);
    fs::create_dir_all(at("runs/00/uploads")).expect("a folder can be made");
    fs::create_dir_all(at("runs/00/journal")).expect("a folder can be made");
    let large: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    folder
        .write(&at("members/a.json"), b"", Access::Owner)
        .expect("kept");
    folder
        .write(&at("members/a.json"), b"a", Access::Owner)
        .expect("kept");
    folder
        .append(&at("runs/00/results.jsonl"), b"one\n")
        .expect("kept");
    folder
        .append(&at("runs/00/results.jsonl"), b"two\n")
        .expect("kept");
    fs::write(at("runs/00/uploads/m.masked"), &large).expect("a file can be written");
    folder.adopt(&at("runs/00/uploads/m.masked")).expect("kept");
    let journal = at("runs/00/journal/m.masked");
    folder
        .rename(&at("runs/00/uploads/m.masked"), &journal)
        .expect("kept");
    let log = Path::new("runs/00/journal/events.bin");
    let grow = |at: u64, bytes: &[u8]| database.change(log, Change::Append { at, bytes });
    grow(0, b"").expect("kept");
    grow(0, b"abc").expect("kept");
    database.change(log, Change::Sync).expect("kept");
    grow(3, b"def").expect("kept");
    database
        .change(log, Change::Truncate { length: 5 })
        .expect("kept");
    fs::write(one.join(log), "abcde").expect("a file can be written");

    // It follows, without masked updates; and has them once it serves.
    let mut following = connect(&store, &other);
    let waits = following.attempt().expect("the store answers");
    assert!(matches!(waits, Attempt::StandsBy { .. }));
    assert!(!other.join("runs/00/journal/m.masked").exists());
    assert!(other.join("runs/00/results.jsonl").exists());
    database.release();
    let serves = following.attempt().expect("the store answers");
    let Attempt::Serves(second) = serves else {
        panic!("the lease was given back");
    };
    assert_eq!(contents(&other), contents(&one));
    let refused = folder.write(&at("members/a.json"), b"b", Access::Owner);
    let refused = refused.expect_err("it was superseded").to_string();
    assert!(
        refused.contains("has taken this federation over"),
        "{refused}"
    );
    assert_eq!(fs::read(at("members/a.json")).expect("it is there"), b"a");

    let folder = Store::folder(&other).mirrored(second.clone());
    folder
        .remove_folder(&other.join("runs/00/journal"))
        .expect("kept");
    second.release();
    assert_eq!(store.objects(), 0, "the masked update is gone");
    let checked = connect(&store, &other).check().expect("the store answers");
    assert_eq!((checked.differences.len(), checked.masked_updates), (0, 0));
    assert_eq!((checked.files, checked.loose_objects), (2, 0));
}

#[test]
fn a_change_waits_for_a_server_that_is_started_again() {
    if !Postgres::is_installed() {
        return;
    }
    let mut store = TestStore::new(StoreKind::Postgres);
    let host = tempfile::tempdir().expect("a temporary folder");
    let (database, folder) = serve(&store, host.path());
    store.server().stop();
    let path = host.path().join("members/a.json");
    let waiting = {
        let path = path.clone();
        std::thread::spawn(move || folder.write(&path, b"a", Access::Owner))
    };
    store.server().go_on();
    waiting.join().expect("no panic").expect("kept");
    assert_eq!(fs::read(&path).expect("it is there"), b"a");
    database.release();
    let checked = connect(&store, host.path()).check().expect("it answers");
    assert_eq!((checked.files, checked.differences.len()), (1, 0));
}

/// A database that stays away longer than a change waits.
#[test]
fn a_run_goes_on_once_its_database_is_back() {
    if !Postgres::is_installed() {
        return;
    }
    let plan = "rounds = 3\nmembers = 3\nbase.name = \"test-base\"\n\
         [adapter]\nlora = { rank = 4, alpha = 8.0, targets = [\"q\", \"v\"] }\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [timeouts]\njoin = 100\nkeys = 100\nshares = 100\nupdate = 100\nconfirm = 100\n\
         reveal = 100\nreconnect = 100\n";
    let mut federation = Federation::kept_in(Some(StoreKind::Postgres));
    let mut aggregator = federation.serve_all();
    let members = &INSTITUTIONS[..3];
    for member in members {
        federation.join(member);
    }
    let run = federation.submit(plan);
    let running: Vec<Running> = members.iter().map(|one| federation.start(one)).collect();
    aggregator.wait_for("round=2 phase=");
    federation.store().server().stop();
    // The second one is after the first has waited for as long as it may.
    let away = "the store does not answer";
    wait_for(
        "a change that was given up",
        || aggregator.stderr(),
        || (aggregator.stderr().matches(away).count() > 1).then_some(()),
    );
    assert!(
        !aggregator.stderr().contains("panicked"),
        "{}",
        aggregator.stderr()
    );
    federation.store().server().go_on();
    for member in running {
        assert_eq!(member.finish().done().document()["rounds"], 3);
    }
    let listed = || {
        let mut runs = federation.runs().into_iter();
        runs.find(|one| one["run"] == json!(run))
            .unwrap_or(Value::Null)
    };
    wait_for(
        "end of the run",
        || listed().to_string(),
        || (listed()["state"] == "finished").then_some(()),
    );
    aggregator.interrupt();
    aggregator.finish().done();
    let checked = federation.checked(&federation.operator());
    assert_eq!(checked["same"], true);
    for none in ["masked_updates", "loose_objects", "unknown_objects"] {
        assert_eq!(checked[none], 0, "{none}");
    }
    let results = federation.results();
    let rounds: Vec<_> = results.iter().map(|one| one["round"].clone()).collect();
    assert_eq!(rounds, [json!(1), json!(2), json!(3)]);
}

/// Large files in a bucket, through the programs: stored in parts, fetched, deleted.
#[test]
fn large_files_go_to_a_bucket_and_come_back() {
    let Some(server) = S3Server::start() else {
        return;
    };
    let federation = Federation::kept_in(None);
    let operator = federation.operator();
    federation.invite("early");
    // Of an adapter, long enough to be sent in parts.
    let large: Vec<u8> = (0..25_000_000_u32).map(|i| (i % 251) as u8).collect();
    let weights = Path::new("runs/00/adapters/round-0001/weights");
    fs::create_dir_all(operator.join(weights).parent().expect("a folder")).expect("made");
    fs::write(operator.join(weights), &large).expect("a file can be written");
    let config = operator.join("aggregator.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    let database = federation.folder().join("store.db");
    let database = database.display();
    let blobs = server.blobs();
    let text =
        format!("{text}\n[store]\ndatabase = \"sqlite://{database}\"\nblobs = \"{blobs}\"\n");
    fs::write(&config, text).expect("the configuration can be written");
    let other = federation.standby();
    let run = |dir: &Path, command: &[&str]| {
        let mut program = program("fedlora-aggregator");
        program.args(command).arg("--dir").arg(dir);
        Finished::of("aggregator", server.tell(&mut program))
    };
    run(&operator, &["store", "import"]).done();
    assert_eq!(server.keys().len(), 1, "{:?}", server.keys());
    assert!(server.keys()[0].starts_with("some/prefix/"));
    // A command there takes the lease, and so fetches everything first.
    run(&other, &["invite", "late"]).done();
    assert_eq!(fs::read(other.join(weights)).expect("fetched"), large);
    assert!(other.join("invitations/early.json").exists());
    run(&other, &["store", "check"]).done();
    // The first host is behind by an invitation, and then not.
    assert_eq!(run(&operator, &["store", "check"]).code, Some(9));
    run(&operator, &["remove", "late"]).done();
    run(&operator, &["store", "check"]).done();
    // What the directory no longer has is deleted from the bucket with the next import.
    fs::remove_file(operator.join(weights)).expect("a file can be removed");
    run(&operator, &["store", "import", "--replace"]).done();
    assert_eq!(server.keys(), [""; 0]);
}

/// A password shows nowhere, whatever goes wrong.
#[test]
fn a_password_is_not_shown() {
    let federation = Federation::kept_in(None);
    let config = federation.operator().join("aggregator.toml");
    let before = fs::read_to_string(&config).expect("a configuration");
    let blobs = format!(
        "blobs = \"file://{}/objects\"",
        federation.folder().display()
    );
    for (store, code) in [
        // Nobody listens; the host has no such name; the line is no TOML; the value is no table.
        (
            "[store]\ndatabase = \"postgres://u:hunter2@127.0.0.1:1/x\"\n",
            5,
        ),
        ("[store]\ndatabase = \"mysql://u:hunter2@127.0.0.1/x\"\n", 3),
        (
            "[store]\ndatabase = \"postgres://u:hunter2@127.0.0.1:99999/x\"\n",
            3,
        ),
        ("[store]\ndatabase = \"postgres://u:hunter2@127.0.0.1\n", 3),
    ] {
        fs::write(&config, format!("{before}\n{store}{blobs}\n")).expect("written");
        let ended = Finished::of("check", federation.operate("remove").arg("none"));
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        ended.failed(code, &[]);
    }
    fs::write(&config, &before).expect("written");
    let mut command = federation.operate("remove");
    command
        .arg("none")
        .env("FEDLORA_STORE_DATABASE", "sqlite:///nowhere/at/all");
    Finished::of("remove", &mut command).failed(3, &["has no blobs", "hint:"]);
}
