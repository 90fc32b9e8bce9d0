//! A round that was kept can be recomputed by anyone, and nothing of its record can be changed
//! without it being seen: whole runs with real processes, then the replay of changed copies.

mod steps;

use std::fs;
use std::path::{Path, PathBuf};

use fedlora_aggregator::audit::{self, AuditError, Comparison, KeptOpening, ReplayReport};
use fedlora_aggregator::run_directory::RunDirectory;
use fedlora_aggregator::store::Store;
use fedlora_common::clock::Timestamp;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::round::coordinator::{Event, EventKind};
use fedlora_protocol::round::evidence::{Breach, Evidence, Joined, Said};
use fedlora_protocol::wire::messages::{Cohort, Deal, Reveal, RevealedShare, RoundResult};
use fedlora_protocol::wire::{Unverified, Verified, codec};
use fedlora_tests::{Federation, Finished, INSTITUTIONS, program};
use serde_json::{Value, json};
use tempfile::TempDir;

const PLAN: &str = r#"
rounds = 2
members = 5
base.name = "test-base"
[adapter]
lora = { rank = 4, alpha = 8.0, targets = ["q", "v"] }
[training]
steps = 1
batch_size = 1
max_tokens = 64
warmup_steps = 0
learning_rate = 0.001
schedule = "constant"
[timeouts]
join = 100
keys = 30
shares = 30
update = 100
confirm = 60
reveal = 60
"#;

const ATTEMPT: &str = "audit/round-0001-attempt-1";

/// A copy of a run that was kept, without the operator's keys.
struct Copy {
    folder: TempDir,
    run: PathBuf,
}

impl Copy {
    fn of(federation: &Federation) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = federation.run().expect("a run");
        let name = source.file_name().expect("a run has an id");
        let run = folder.path().join("runs").join(name);
        copy(&source, &run);
        Self { folder, run }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// Changes a file.
    fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let path = self.path(name);
        let mut bytes = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        edit(&mut bytes);
        fs::write(path, bytes).expect("a copy can be written");
    }

    /// Replaces a text in a file.
    fn replace(&self, name: &str, old: &str, new: &str) {
        let path = self.path(name);
        let text = fs::read_to_string(&path).expect("a text");
        let changed = text.replacen(old, new, 1);
        assert_ne!(text, changed, "{name} holds no {old}");
        fs::write(path, changed).expect("a copy can be written");
    }

    fn opening(&self) -> KeptOpening {
        let text = fs::read(self.path(ATTEMPT).join("open.json")).expect("M0 is kept");
        serde_json::from_slice(&text).expect("M0 in JSON")
    }

    fn events(&self) -> Vec<Event> {
        let bytes = fs::read(self.path(ATTEMPT).join("events.bin")).expect("events are kept");
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (event, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            events.push(codec::decode(event).expect("an event"));
            rest = after;
        }
        assert!(rest.is_empty());
        events
    }

    fn keep(&self, events: &[Event]) {
        let mut bytes = Vec::new();
        for event in events {
            let event = codec::encode(event).expect("an event");
            bytes.extend((event.len() as u32).to_le_bytes());
            bytes.extend(event);
        }
        fs::write(self.path(ATTEMPT).join("events.bin"), bytes).expect("a copy can be written");
    }

    fn try_replay(&self, round: u32) -> Result<ReplayReport, AuditError> {
        let directory =
            RunDirectory::find(&Store::folder(self.folder.path()), None).expect("one run");
        audit::replay(&directory, RoundNumber(round))
    }

    /// Replays a round that does not match, and gives what is found.
    fn refused(&self, round: u32, finding: &str) -> ReplayReport {
        let report = self.try_replay(round).expect("a record to replay");
        assert!(!report.matches(), "{finding}: {report:?}");
        let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert!(
            found.iter().any(|found| found.contains(finding)),
            "{finding}: {found:?}"
        );
        report
    }

    /// The program's replay.
    fn command(&self, arguments: &[&str]) -> Finished {
        let mut command = program("fedlora-aggregator");
        command.args(["audit", "replay", "--dir"]);
        command.arg(self.folder.path()).args(arguments);
        Finished::of("replay", command.args(["--format", "json"]))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// Runs a plan with five members.
fn served(plan: &str, keep: &[&str]) -> Federation {
    let federation = Federation::new();
    let mut serving = federation.serving(plan);
    let mut aggregator = fedlora_tests::Running::start("the aggregator", serving.args(keep));
    aggregator.wait_for("waiting for members");
    for member in INSTITUTIONS {
        federation.join(member);
    }
    let running: Vec<_> = INSTITUTIONS.map(|member| federation.start(member)).into();
    for member in running {
        member.finish().done();
    }
    aggregator.finish().done();
    federation
}

#[test]
fn a_kept_round_is_recomputed_and_no_byte_of_it_can_be_changed() {
    let federation = served(PLAN, &["--keep-for-audit"]);
    matches(&federation);
    uploads(&federation);
    events(&federation);
    results(&federation);
    plan_and_adapters(&federation);
    evidence(&federation);
}

fn matches(federation: &Federation) {
    let kept = Copy::of(federation);
    let left = fs::read_dir(kept.path("uploads"))
        .expect("a folder")
        .count();
    assert_eq!(left, 0, "masked updates lie in the audit's folder alone");
    for round in ["1", "2"] {
        let document = kept.command(&["--round", round]).done().document();
        for what in ["participation", "transcript", "sum", "losses", "adapter"] {
            assert_eq!(document[what], "matches", "{what}");
        }
        assert_eq!(document["ok"], true);
        assert_eq!(document["members"], 5);
        assert_eq!(document["survivors"], json!([0, 1, 2, 3, 4]));
        assert_eq!(document["findings"], json!([]));
        assert_eq!(document["roster"], federation.roster()["digest"]);
        // Of each member M1, deal, held and claim; confirmations and reveals that suffice.
        assert!(document["signatures"].as_u64() >= Some(4 * 5 + 2 * 3 + 2));
        assert!(document["events"].as_u64() >= Some(4 * 5 + 2 * 3));
    }
    let unknown = kept.command(&["--round", "3"]);
    unknown.failed(1, &["no result of round 3"]);
    kept.command(&["--round", "1", "--run", "00"])
        .failed(1, &["there is no run 00"]);
    fs::create_dir(kept.folder.path().join("runs/other")).expect("a folder can be made");
    kept.command(&["--round", "1"])
        .failed(1, &["several runs", "hint: name the run with --run"]);
}

fn uploads(federation: &Federation) {
    let upload = |member: u16| format!("{ATTEMPT}/member-{member}.masked");
    let kept = Copy::of(federation);
    kept.edit(&upload(3), |bytes| bytes[0] ^= 1);
    let report = kept.refused(
        1,
        "the upload of member #3 is not the one that it signed for",
    );
    assert_eq!(report.sum, Comparison::Differs);
    assert_eq!(report.transcript, Comparison::Matches);
    let done = kept.command(&["--round", "1", "--partial"]);
    assert_eq!(done.code, Some(9), "{}", done.stderr);
    assert_eq!(done.document()["ok"], false);

    let kept = Copy::of(federation);
    // The high byte of the first of three lanes behind the coordinates: a loss beyond all bounds.
    kept.edit(&upload(0), |bytes| {
        let place = bytes.len() - 7;
        bytes[place] ^= 64;
    });
    let report = kept.refused(1, "the sum gives no adapter");
    assert_eq!(report.sum, Comparison::Differs);
    assert_eq!(report.adapter, Comparison::NotComputed);

    let kept = Copy::of(federation);
    kept.edit(&upload(4), |bytes| bytes.truncate(bytes.len() - 1));
    let report = kept.refused(1, "the upload of member #4 cannot be added");
    assert_eq!(report.sum, Comparison::NotComputed);

    let kept = Copy::of(federation);
    fs::remove_file(kept.path(&upload(1))).expect("an upload");
    let report = kept.refused(1, "the upload of member #1 is missing");
    assert_eq!(report.sum, Comparison::NotComputed);

    // Without any upload the rest is checked, and the report says so.
    for member in [0, 2, 3, 4] {
        fs::remove_file(kept.path(&upload(member))).expect("an upload");
    }
    let done = kept.command(&["--round", "1"]);
    assert_eq!(done.code, Some(9));
    assert!(
        done.stderr
            .contains("hint: take what is there with --partial")
    );
    assert_eq!(done.document()["ok"], false);
    let document = kept
        .command(&["--round", "1", "--partial"])
        .done()
        .document();
    assert_eq!(document["ok"], true);
    assert_eq!(document["transcript"], "matches");
    for what in ["sum", "losses", "adapter"] {
        assert_eq!(document[what], "uploads not kept");
    }
}

fn events(federation: &Federation) {
    let name = format!("{ATTEMPT}/events.bin");
    let kept = Copy::of(federation);
    let whole = kept.events();
    let length = fs::metadata(kept.path(&name)).expect("events").len() as usize;
    for place in [40, length / 3, length / 2, length - 1] {
        let kept = Copy::of(federation);
        kept.edit(&name, |bytes| bytes[place] ^= 1);
        let report = kept.refused(1, "event ");
        assert_eq!(report.sum, Comparison::NotComputed, "{place}");
    }
    kept.edit(&name, |bytes| bytes.truncate(length - 1));
    kept.refused(1, &format!("event {} cannot be read", whole.len()));
    kept.keep(&whole[..whole.len() - 1]);
    kept.refused(1, "the events end before the round does");
    kept.keep(&[&whole[..], &whole[..1]].concat());
    kept.refused(1, &format!("event {} is refused", whole.len() + 1));

    // Its time is up with the keys of two members.
    let up = Event {
        at: Timestamp(whole[0].at.0 + 3_600_000),
        kind: EventKind::TimeUp,
    };
    kept.keep(&[whole[0].clone(), whole[1].clone(), up]);
    kept.refused(1, "by the events the attempt failed");

    // The signature of a reveal is over the list that the coordinator has.
    let mut altered = whole.clone();
    let (place, reveal) = a_reveal(&whole);
    let body = Reveal {
        list: kept.opening().open.digest(),
        ..reveal.claimed().clone()
    };
    altered[place].kind = EventKind::Revealed(Unverified::from_parts(body, reveal.signature()));
    kept.keep(&altered);
    kept.refused(
        1,
        &format!("event {} is not what its message gives", place + 1),
    );

    fs::remove_file(kept.path(&name)).expect("events");
    let error = kept.try_replay(1).expect_err("no events");
    assert!(matches!(error, AuditError::NotKept { .. }), "{error}");
}

fn results(federation: &Federation) {
    let kept = Copy::of(federation);
    kept.replace("results.jsonl", "\"total_weight\":5", "\"total_weight\":6");
    let report = kept.refused(1, "the signature of the result of round 1 does not verify");
    assert_eq!(report.participation, Comparison::Differs);
    assert_eq!(report.sum, Comparison::Matches);
    // The next round starts from that result.
    kept.refused(2, "the result of round 2 does not continue the chain");

    let original = &federation.results()[0];
    for (field, comparison) in [
        ("sum", (|report| report.sum) as fn(&ReplayReport) -> _),
        ("adapter", |report| report.adapter),
        ("transcript", |report| report.transcript),
    ] {
        let kept = Copy::of(federation);
        let old = original[field].as_str().expect("a digest");
        let new = original["previous"].as_str().expect("a digest");
        kept.replace("results.jsonl", old, new);
        let report = kept.refused(1, "the signature of the result of round 1");
        assert_eq!(comparison(&report), Comparison::Differs, "{field}");
    }
    let kept = Copy::of(federation);
    kept.replace("results.jsonl", "\"clipped\":0", "\"clipped\":1");
    let report = kept.refused(1, "the signature of the result of round 1");
    assert_eq!(report.losses, Comparison::Differs);

    // The aggregator itself signs another adapter than the sum gives.
    let kept = Copy::of(federation);
    let seed = fs::read(federation.operator().join("identity.key")).expect("a key");
    let key = IdentityKey::from_bytes(&seed.try_into().expect("32 bytes"));
    kept.edit("results.jsonl", |bytes| {
        let line = bytes.split(|byte| *byte == b'\n').next().expect("a line");
        let result: Unverified<RoundResult> = serde_json::from_slice(line).expect("a result");
        let mut body = result.claimed().clone();
        body.adapter = body.previous;
        let previous = body.previous;
        let signed = Verified::sign(body, &key, &previous);
        *bytes = serde_json::to_vec(signed.unverified()).expect("a result is JSON");
    });
    let report = kept.try_replay(1).expect("a record to replay");
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.adapter, Comparison::Differs);
    assert_eq!(report.sum, Comparison::Matches);
    assert!(report.is_whole() && !report.matches());
    let done = kept.command(&["--round", "1"]);
    assert_eq!(done.code, Some(9));
    assert!(done.stderr.contains("round 1 is not what its record gives"));

    let kept = Copy::of(federation);
    kept.edit("results.jsonl", |bytes| bytes[0] ^= 1);
    let error = kept.try_replay(1).expect_err("no results");
    assert!(matches!(error, AuditError::Json { .. }), "{error}");
    kept.command(&["--round", "1"])
        .failed(9, &["results.jsonl"]);
}

fn plan_and_adapters(federation: &Federation) {
    let kept = Copy::of(federation);
    kept.replace("audit/plan.json", "\"rounds\": 2", "\"rounds\": 3");
    kept.command(&["--round", "1"])
        .failed(9, &["the kept plan"]);

    let kept = Copy::of(federation);
    kept.replace("roster.json", INSTITUTIONS[0], "bank-identify");
    kept.refused(1, "M0 is not what plan, roster and earlier results give");
    kept.edit("roster.json", |bytes| *bytes = b"[]".to_vec());
    let error = kept.try_replay(1).expect_err("another roster");
    assert!(matches!(error, AuditError::Members { .. }), "{error}");

    let weights = |folder: &str| format!("{folder}/adapter_model.safetensors");
    let low_bit = |bytes: &mut Vec<u8>| {
        let place = bytes.len() - 4;
        bytes[place] ^= 1;
    };
    let kept = Copy::of(federation);
    kept.edit(&weights("audit/first-adapter"), low_bit);
    let report = kept.refused(1, "the first adapter is not what plan and layout give");
    assert_eq!(report.sum, Comparison::Matches);
    fs::remove_dir_all(kept.path("audit/first-adapter")).expect("a folder");
    kept.command(&["--round", "1"]).failed(
        1,
        &["first-adapter is not there", "hint: ", "--keep-for-audit"],
    );

    let kept = Copy::of(federation);
    kept.edit(&weights("adapters/round-0001"), low_bit);
    let report = kept.refused(2, "the adapter before the round is not the one of M0");
    assert_eq!(report.sum, Comparison::Matches);
    fs::remove_dir_all(kept.path("adapters/round-0001")).expect("a folder");
    let report = kept.try_replay(2).expect("a record to replay");
    assert!(report.matches() && !report.is_whole());
    assert_eq!(report.sum, Comparison::Matches);
    assert_eq!(report.adapter, Comparison::AdapterNotKept);
}

/// The first reveal among the events, with its place.
fn a_reveal(events: &[Event]) -> (usize, &Unverified<Reveal>) {
    let mut places = events.iter().enumerate();
    let found = places.find_map(|(place, event)| match &event.kind {
        EventKind::Revealed(reveal) => Some((place, reveal)),
        _ => None,
    });
    found.expect("a member revealed")
}

/// A member that reveals another share of its own secret than it dealt to itself, as the aggregator
/// would keep it; and what it revealed in truth, which proves nothing.
fn evidence(federation: &Federation) {
    let kept = Copy::of(federation);
    let events = kept.events();
    let (_, reveal) = a_reveal(&events);
    let holder = reveal.claimed().member;
    let own: &Unverified<Deal> = events
        .iter()
        .find_map(|event| match &event.kind {
            EventKind::SharesTaken(deal) if deal.claimed().member == holder => Some(deal),
            _ => None,
        })
        .expect("a survivor dealt");
    let weights = events.iter().filter_map(|event| match &event.kind {
        EventKind::KeysTaken(keys, _) => Some((keys.claimed().member, keys.claimed().weight)),
        _ => None,
    });
    let open = kept.opening().open;
    let of = |reveal: Unverified<Reveal>| Evidence {
        open: open.clone(),
        joined: Joined {
            cohort: Cohort::new(&weights.clone().collect()),
            beacon: None,
        },
        breach: Breach::ForgedShare {
            owner: holder,
            said: Said::Dealt(own.clone()),
            reveal,
        },
    };
    let name = INSTITUTIONS[usize::from(holder.0)];
    let seed = fs::read(federation.home(name).join("identity.key")).expect("a key");
    let key = IdentityKey::from_bytes(&seed.try_into().expect("32 bytes"));
    let mut body = reveal.claimed().clone();
    body.shares.insert(holder, RevealedShare::SelfMask([7; 32]));
    let forged = Verified::sign(body.clone(), &key, &open.digest());
    let unsigned = Unverified::from_parts(body, reveal.signature());

    let check = |evidence: &Evidence| {
        let file = kept.folder.path().join("evidence.json");
        let text = serde_json::to_vec(evidence).expect("evidence is JSON");
        fs::write(&file, text).expect("a file can be written");
        let mut command = program("fedlora-aggregator");
        command.args(["audit", "evidence", "--format", "json", "--dir"]);
        Finished::of("evidence", command.arg(kept.folder.path()).arg(file))
    };
    let document = check(&of(forged.unverified().clone())).done().document();
    assert_eq!(document["proven"], true);
    assert_eq!(document["member"], name);
    assert_eq!(document["reason"], Value::Null);
    let breach = document["breach"].as_str().expect("a sentence");
    assert!(breach.contains("another share"), "{breach}");

    for (evidence, reason) in [
        (of(reveal.clone()), "no breach"),
        (of(unsigned), "the signature of member"),
    ] {
        let done = check(&evidence);
        assert_eq!(done.code, Some(9), "{}", done.stderr);
        let document = done.document();
        assert_eq!(document["proven"], false);
        assert_eq!(document["member"], Value::Null);
        let said = document["reason"].as_str().expect("a reason");
        assert!(said.contains(reason), "{said}");
    }
    kept.replace("roster.json", INSTITUTIONS[0], "bank-identify");
    let done = check(&of(forged.unverified().clone()));
    assert_eq!(done.code, Some(9));
    assert!(done.stderr.contains("another roster"), "{}", done.stderr);
}

#[test]
fn a_run_that_was_not_kept_has_its_roster_and_nothing_else() {
    let federation = served(PLAN, &[]);
    let kept = Copy::of(&federation);
    assert!(kept.path("roster.json").exists());
    assert!(!kept.path("audit").exists());
    kept.command(&["--round", "1"])
        .failed(1, &["plan.json is not there", "--keep-for-audit"]);
}
