//! For tests: operators' directories with known runs.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use fedlora_protocol::plan::{Roster, RosterEntry, RunPlan, SignedPlan};
use fedlora_protocol::receipt::RunReceipt;
use fedlora_protocol::wire::Verified;
use fedlora_protocol::wire::messages::RoundResult;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::config::AggregatorConfig;
use crate::directory::{Directory, Opened};
use crate::queue::QueuedPlan;
use crate::registry::MemberRecord;
use crate::run_directory::{EndOutcome, RunDirectory, RunEnding};
use crate::web::Shown;

/// 27 November 2026, 23:00 UTC.
pub(crate) const NOW: Timestamp = Timestamp(1_795_820_400_000);
pub(crate) const PID: u32 = 7;
pub(crate) const MEMBERS: [&str; 6] = [
    "bank-identity",
    "cloud-storage",
    "device-vendor",
    "hospital-privacy",
    "kernel-lab",
    "web-soc",
];
/// The run that is served.
pub(crate) const LIVE: RunId = RunId([0xa1; 16]);
pub(crate) const FINISHED: RunId = RunId([0xb2; 16]);
pub(crate) const FAILED: RunId = RunId([0xc3; 16]);
pub(crate) const ABORTED: RunId = RunId([0xd4; 16]);
pub(crate) const QUEUED: RunId = RunId([0xe5; 16]);

/// What people from outside may write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    pub(crate) federation: &'static str,
    pub(crate) base: &'static str,
    pub(crate) problem: &'static str,
    pub(crate) release: &'static str,
    pub(crate) reason: &'static str,
}

pub(crate) const HONEST: Words = Words {
    federation: "Cardiology consortium",
    base: "HuggingFaceTB/SmolLM2-135M-Instruct",
    problem: "the plan's rank of 8 is below this member's floor of 16",
    release: "0.1.0",
    reason: "wrong base model",
};

/// A directory, and what keeps it served.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) shown: Shown,
    pub(crate) opened: Opened,
    members: Vec<String>,
    _lock: File,
}

impl Operator {
    /// A federation whose members have joined; a process serves it.
    pub(crate) fn new(root: &Path, federation: &str, members: &[String]) -> Self {
        let address: SocketAddr = "127.0.0.1:4433".parse().unwrap();
        let config = AggregatorConfig::new(federation, address).unwrap();
        let from = OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_millis(NOW.0);
        let directory = Directory::init(root, &config, from).unwrap();
        let (directory, opened) = Directory::open(directory.root()).unwrap();
        for (number, name) in members.iter().enumerate() {
            let entry = entry(number, name);
            let record = MemberRecord {
                name: entry.name,
                identity: entry.identity,
                certificate_key: entry.certificate_key,
                serial: format!("{number:02x}"),
                joined: Timestamp(NOW.0 - 1_000_000_000),
            };
            let path = directory.members().join(format!("{name}.json"));
            fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
        }
        Self {
            _lock: directory.lock().unwrap(),
            shown: Shown {
                federation: federation.to_owned(),
                directory,
            },
            opened,
            members: members.to_vec(),
        }
    }

    /// All kinds of runs, one of them served.
    pub(crate) fn with_runs(root: &Path, words: &Words) -> Self {
        let mut joined: Vec<_> = MEMBERS.map(str::to_owned).to_vec();
        joined.push("zoo-clinic".to_owned());
        let mut operator = Self::new(root, words.federation, &joined);
        operator.members.pop();
        let losses = [3.412, 3.118, 2.94, 2.851, 2.79, 2.762, 2.77, 2.781];
        operator.run(FINISHED, words.base, 8, &losses);
        operator.end(FINISHED, EndOutcome::Finished, None);
        operator.run(FAILED, words.base, 8, &losses[..1]);
        operator.end(
            FAILED,
            EndOutcome::Failed,
            Some("2 of 4 survivors confirmed the list"),
        );
        operator.run(ABORTED, words.base, 8, &[]);
        let why = format!("the operator has ended the run: {}", words.reason);
        operator.end(ABORTED, EndOutcome::Aborted, Some(&why));
        operator.run(LIVE, words.base, 12, &losses[..5]);
        operator.queue(QUEUED, words.base);
        operator.status(&operator.live(words));
        operator
    }

    /// A run with as many rounds as losses; its files appear in the order of the calls.
    pub(crate) fn run(&self, run: RunId, base: &str, rounds: u32, losses: &[f32]) {
        let made_up = |round: u32| Digest::of("a test's adapter", &round.to_le_bytes());
        self.run_of(run, base, rounds, losses, &made_up);
    }

    /// The same with these adapters; 0 is the first.
    pub(crate) fn run_of(
        &self,
        run: RunId,
        base: &str,
        rounds: u32,
        losses: &[f32],
        adapter: &dyn Fn(u32) -> Digest,
    ) {
        let plan = plan(rounds, self.members.len(), base);
        let members = self.members.iter().enumerate();
        let receipt = RunReceipt {
            aggregator: self.opened.identity.public(),
            plan: SignedPlan::sign(run, plan.clone(), &self.opened.identity),
            roster: Roster::new(members.map(|(at, name)| entry(at, name)).collect()).unwrap(),
            first: adapter(0),
        };
        let folder = RunDirectory::create(self.shown.directory.store(), run)
            .map_err(|(_, error)| error)
            .unwrap();
        fs::write(folder.receipt(), serde_json::to_vec(&receipt).unwrap()).unwrap();
        let mut previous = RoundResult::chain_start(
            run,
            &plan.digest(),
            &receipt.roster.digest(),
            &receipt.first,
        );
        let mut lines = String::new();
        for (round, loss) in (1..).zip(losses) {
            let gone = |member: &u16| round % 3 == 2 && *member == 2;
            let all = 0..self.members.len() as u16;
            let result = RoundResult {
                run,
                round: RoundNumber(round),
                attempt: Attempt(1 + u32::from(round == 4)),
                adapter: adapter(round),
                sum: Digest::from_bytes([2; 32]),
                total_weight: 6,
                transcript: Digest::from_bytes([3; 32]),
                previous,
                survivors: all
                    .clone()
                    .filter(|one| !gone(one))
                    .map(MemberIndex)
                    .collect(),
                dropped: all.filter(gone).map(MemberIndex).collect(),
                train_loss: Some(loss - 0.08),
                eval_loss: Some(*loss),
                clipped: Some(1),
                votes: Some(0),
            };
            let signed = Verified::sign(result, &self.opened.identity, &previous);
            previous = signed.body().digest();
            lines += &(serde_json::to_string(signed.unverified()).unwrap() + "\n");
        }
        fs::write(folder.results(), lines).unwrap();
    }

    pub(crate) fn end(&self, run: RunId, outcome: EndOutcome, failure: Option<&str>) {
        let folder = RunDirectory::of(self.shown.directory.store(), run).unwrap();
        // The failed one first, so that the newest end is another's.
        let at = NOW.0 - 86_400_000 - u64::from(outcome == EndOutcome::Failed) * 86_400_000;
        let end = RunEnding {
            outcome,
            failure: failure.map(str::to_owned),
            at: Timestamp(at),
        };
        folder.store_end(&end).unwrap();
    }

    fn queue(&self, run: RunId, base: &str) {
        let queued = QueuedPlan {
            submitted: Timestamp(NOW.0 - 3_600_000),
            run,
            keep_for_audit: false,
            plan: plan(20, self.members.len(), base),
        };
        self.shown.directory.queue().submit(&queued).unwrap();
    }

    pub(crate) fn status(&self, status: &Value) {
        let text = serde_json::to_vec(status).unwrap();
        fs::write(self.shown.directory.status_path(), text).unwrap();
    }

    /// The status of the live run: a round in which members train.
    pub(crate) fn live(&self, words: &Words) -> Value {
        let day = 86_400_000;
        let member = |(number, name): (usize, &String)| {
            let away = number == 3;
            json!({
                "name": name,
                "connected": !away,
                "transport": if away { Value::Null } else if number == 1 { "tcp".into() } else { "quic".into() },
                "ready": number < 3 && !away,
                "rounds": 5 - usize::from(number == 2) * 2,
                "problem": if away { words.problem.into() } else { Value::Null },
                "release": if number == 4 { "0.0.9" } else { words.release },
                "last_seen": NOW.0 - if away { 5_400_000 } else { 4_000 * number as u64 + 1_000 },
                "certificate_end": NOW.0 + if number == 5 { 21 * day } else { 300 * day },
            })
        };
        let names = |from: usize, to: usize| &self.members[from..to];
        json!({
            "schema_version": 1, "federation": self.shown.federation, "run": LIVE.to_string(),
            "state": "running", "failure": null, "rounds_planned": 12, "rounds_done": 5,
            "phase": "updates", "attempt": 1,
            "stage": {
                "name": "updates", "since": NOW.0 - 480_000, "until": NOW.0 + 6_720_000,
                "needed": 6, "ready": names(0, 3), "awaited": names(3, 6)
            },
            "stage_seconds": {"gathering": 412.0, "consent": 61.0, "keys": 1.25, "shares": 2.5,
                "held": 0.8, "updates": 812.0, "confirm": 1.1, "reveal": 1.4},
            "members": self.members.iter().enumerate().map(member).collect::<Vec<_>>(),
            "adapter": null, "best_round": 5, "stopped_early": false, "attempts_failed": 1,
            "messages_refused": 0, "bytes_received": 148_300_000_u64, "bytes_sent": 151_900_000_u64,
            "pooled_loss": 2.79, "last_result": NOW.0 - 500_000,
            "certificate_end": NOW.0 + 25 * day, "updated": NOW.0 - 2_000, "pid": PID
        })
    }
}

fn plan(rounds: u32, members: usize, base: &str) -> RunPlan {
    let plan = RunPlan::from_toml(&format!(
        "rounds = {rounds}\nmembers = {members}\nseed = 1\n[base]\nname = {base:?}\n[adapter]\n\
         lora = {{ rank = 2, alpha = 4.0, dropout = 0.0, targets = [\"q\"] }}\n",
    ));
    plan.unwrap()
}

fn entry(number: usize, name: &str) -> RosterEntry {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
    RosterEntry {
        name: name.parse().unwrap(),
        identity: IdentityKey::from_bytes(&seed).public(),
        certificate_key: Digest::from_bytes(seed),
    }
}
