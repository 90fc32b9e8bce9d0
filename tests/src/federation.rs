//! A federation on the loopback: an operator's directory, members' directories, a little data.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use fedlora_adapter::{Adapter, peft};
use serde_json::Value;
use tempfile::TempDir;

use crate::link::TestLink;
use crate::programs::{Finished, Running, program};
use crate::store::{StoreKind, TestStore};

/// Members whose data comes with the repository, in the order of a roster.
pub const INSTITUTIONS: [&str; 5] = [
    "bank-identity",
    "cloud-storage",
    "device-vendor",
    "hospital-privacy",
    "kernel-lab",
];

/// Records of a member's training data: enough for a step, little enough to be quick.
const RECORDS: usize = 12;
/// Records that it holds out.
const HELD_OUT: usize = 2;

/// The repository's folder.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in the repository")
        .to_owned()
}

/// A federation with its directories.
#[derive(Debug)]
pub struct Federation {
    folder: TempDir,
    listen: SocketAddr,
    join_listen: SocketAddr,
    /// What is behind the operator's directory, where something is.
    store: Option<TestStore>,
}

impl Federation {
    /// A new federation, initialised by the operator's program. Its directory is in the store that
    /// `FEDLORA_TEST_STORE` asks for, its network the one of `FEDLORA_TEST_LINK`.
    pub fn new() -> Self {
        Self::kept_in(StoreKind::asked())
    }

    /// The same with the key of its certificate authority sealed by a passphrase.
    pub fn sealed(passphrase: &str) -> Self {
        let federation = Self::unmade(StoreKind::asked());
        let file = federation.folder().join("passphrase");
        fs::write(&file, passphrase).expect("a file can be written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&file, mode).expect("a mode can be set");
        }
        let mut init = federation.init();
        init.args(["--seal-ca", "--passphrase-file"]).arg(file);
        federation.made(&mut init)
    }

    /// The same, made by this command: one of [`init`](Self::init) with other options.
    pub fn made_by(options: impl FnOnce(&Self, &mut Command)) -> Self {
        let federation = Self::unmade(StoreKind::asked());
        let mut init = federation.init();
        options(&federation, &mut init);
        federation.made(&mut init)
    }

    /// The same with a store of this kind.
    pub fn kept_in(store: Option<StoreKind>) -> Self {
        let federation = Self::unmade(store);
        let mut init = federation.init();
        federation.made(&mut init)
    }

    fn unmade(store: Option<StoreKind>) -> Self {
        let port = free_port();
        let [listen, join_listen] =
            [port, port + 1].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            listen,
            join_listen,
            store: store.map(TestStore::new),
        }
    }

    fn made(self, init: &mut Command) -> Self {
        Finished::of("init", init).done();
        TestLink::configure(&self.operator());
        if let Some(store) = &self.store {
            store.configure(&self.operator());
        }
        self
    }

    /// The command that initialises the operator's directory.
    pub fn init(&self) -> Command {
        let mut command = program("fedlora-aggregator");
        command
            .args(["init", "--name", "test", "--dir"])
            .arg(self.operator())
            .arg("--listen")
            .arg(self.listen.to_string())
            .arg("--join-listen")
            .arg(self.join_listen.to_string());
        command
    }

    /// Where members connect.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where invited members join.
    pub fn join_listen(&self) -> SocketAddr {
        self.join_listen
    }

    /// The folder of everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The operator's directory.
    pub fn operator(&self) -> PathBuf {
        self.folder().join("operator")
    }

    /// The store behind the operator's directory.
    ///
    /// # Panics
    /// Where there is none.
    pub fn store(&mut self) -> &mut TestStore {
        self.store.as_mut().expect("a federation with a store")
    }

    /// Makes the directory of another host: the operator's keys and configuration.
    pub fn standby(&self) -> PathBuf {
        let standby = self.folder().join("standby");
        fs::create_dir(&standby).expect("a folder can be made");
        for name in ["aggregator.toml", "ca.pem", "ca.key", "identity.key"] {
            let copied = fs::copy(self.operator().join(name), standby.join(name));
            copied.expect("keys and configuration can be copied");
        }
        standby
    }

    /// What `store check` says of an operator's directory; whether they are the same or not.
    pub fn checked(&self, operator: &Path) -> Value {
        let mut command = program("fedlora-aggregator");
        command
            .args(["store", "check", "--format", "json", "--dir"])
            .arg(operator);
        Finished::of("check", &mut command).document()
    }

    /// A member's directory.
    pub fn home(&self, member: &str) -> PathBuf {
        self.folder().join("members").join(member)
    }

    /// An operator's command on this federation.
    pub fn operate(&self, command: &str) -> Command {
        let mut operate = program("fedlora-aggregator");
        operate.arg(command).arg("--dir").arg(self.operator());
        operate
    }

    /// Invites a member; its token.
    pub fn invite(&self, member: &str) -> String {
        let done = Finished::of("invite", self.operate("invite").arg(member)).done();
        done.stdout.trim().to_owned()
    }

    /// The command that joins with a token.
    pub fn joining(&self, token: &str, member: &str) -> Command {
        let mut command = program("fedlora");
        command
            .args(["join", token, "--dir"])
            .arg(self.home(member));
        command
    }

    /// Invites a member and lets it join; the aggregator must be serving.
    pub fn join(&self, member: &str) {
        let token = self.invite(member);
        Finished::of("join", &mut self.joining(&token, member)).done();
        self.allow_short_training(member);
    }

    /// Lowers the member's floor of examples a round: tests train on one.
    pub fn allow_short_training(&self, member: &str) {
        let path = self.home(member).join("fedlora.toml");
        let text = fs::read_to_string(&path).expect("a member's configuration");
        let lower = text.replace("examples = 16", "examples = 1");
        assert_ne!(lower, text, "the floor is in the configuration");
        fs::write(&path, lower).expect("the configuration can be written");
    }

    /// The command that serves a plan.
    pub fn serving(&self, plan: &str) -> Command {
        let path = self.folder().join("plan.toml");
        fs::write(&path, plan).expect("a plan can be written");
        let mut command = self.operate("serve");
        command.arg("--plan").arg(path).args(["--format", "json"]);
        command
    }

    /// Serves a plan; returns once members can connect.
    pub fn serve(&self, plan: &str) -> Running {
        let mut serving = Running::start("the aggregator", &mut self.serving(plan));
        serving.wait_for("waiting for members");
        serving
    }

    /// Serves all runs that are submitted; returns once members can connect.
    pub fn serve_all(&self) -> Running {
        let mut serving = Running::start("the aggregator", &mut self.operate("serve"));
        serving.wait_for("members can connect");
        serving
    }

    /// Submits a plan; gives the run's id.
    pub fn submit(&self, plan: &str) -> String {
        let path = self.folder().join("submitted.toml");
        fs::write(&path, plan).expect("a plan can be written");
        let done = Finished::of("submit", self.operate_run("submit").arg(path)).done();
        done.stdout.trim().to_owned()
    }

    /// One of the commands of `fedlora-aggregator run`.
    pub fn operate_run(&self, command: &str) -> Command {
        let mut operate = program("fedlora-aggregator");
        operate.args(["run", command, "--dir"]).arg(self.operator());
        operate
    }

    /// All runs, as the operator's `run list` prints them.
    pub fn runs(&self) -> Vec<Value> {
        let listed = Finished::of("list", self.operate_run("list").args(["--format", "json"]));
        let mut document = listed.done().document();
        match document["runs"].take() {
            Value::Array(runs) => runs,
            other => panic!("no list: {other}"),
        }
    }

    /// A command of a member's, such as `plan approve`.
    pub fn member(&self, member: &str, command: &[&str]) -> Command {
        let mut run = program("fedlora");
        run.args(command).arg("--dir").arg(self.home(member));
        run
    }

    /// Writes a member's rules for its agent.
    pub fn set_rules(&self, member: &str, rules: &str) {
        let path = self.home(member).join("fedlora.toml");
        let text = fs::read_to_string(&path).expect("a member's configuration");
        let before = text.split("\n[agent]").next().unwrap_or_default();
        fs::write(&path, format!("{before}\n[agent]\n{rules}\n")).expect("it can be written");
    }

    /// Starts a member's agent.
    pub fn start_agent(&self, member: &str) -> Running {
        let base = repository().join("examples/assets/base");
        let mut command = self.member(member, &["agent", "--format", "json"]);
        command
            .arg("--base")
            .arg(base)
            .arg("--data")
            .arg(self.data(member, "train"));
        Running::start(member, &mut command)
    }

    /// A few of an institution's records.
    pub fn data(&self, member: &str, kind: &str) -> PathBuf {
        let name = format!("{member}.{kind}.jsonl");
        let text = fs::read_to_string(repository().join("examples/assets/data").join(&name))
            .expect("the repository has the institution's data");
        let count = if kind == "train" { RECORDS } else { HELD_OUT };
        let lines: Vec<_> = text.lines().take(count).collect();
        let path = self.folder().join(name);
        fs::write(&path, lines.join("\n") + "\n").expect("records can be written");
        path
    }

    /// The members that have joined, as the operator's `roster` prints them.
    pub fn roster(&self) -> Value {
        let mut command = self.operate("roster");
        Finished::of("roster", command.args(["--format", "json"]))
            .done()
            .document()
    }

    /// The command with which a member takes part, on the repository's base model. The member
    /// accepts the roster of all that have joined so far.
    pub fn taking_part(&self, member: &str) -> Command {
        let base = repository().join("examples/assets/base");
        self.taking_part_with(member, &base, &self.data(member, "train"))
    }

    /// The same with another base model and other records.
    pub fn taking_part_with(&self, member: &str, base: &Path, data: &Path) -> Command {
        let roster = self.roster();
        let digest = roster["digest"].as_str().expect("a roster has a digest");
        let mut command = self.asked_to_take_part(member, base, data);
        command.args(["--accept-roster", digest]);
        command
    }

    /// The same of a member that has accepted no roster beforehand.
    pub fn asked_to_take_part(&self, member: &str, base: &Path, data: &Path) -> Command {
        let mut command = program("fedlora");
        command
            .args(["run", "--format", "json", "--patience", "60", "--dir"])
            .arg(self.home(member))
            .arg("--base")
            .arg(base)
            .arg("--data")
            .arg(data);
        if INSTITUTIONS.contains(&member) {
            command.arg("--held-out").arg(self.data(member, "heldout"));
        }
        command
    }

    /// Starts a member.
    pub fn start(&self, member: &str) -> Running {
        Running::start(member, &mut self.taking_part(member))
    }

    /// The adapter that a member ended with.
    pub fn adapter(&self, member: &str) -> Adapter {
        peft::load(&self.home(member).join("global"))
            .unwrap_or_else(|error| panic!("{member}'s adapter: {error}"))
    }

    /// What the operator's `status` prints.
    pub fn status(&self) -> Value {
        let mut command = self.operate("status");
        Finished::of("status", command.args(["--format", "json"]))
            .done()
            .document()
    }

    /// The folder of the one run, once there is one.
    pub fn run(&self) -> Option<PathBuf> {
        run_in(&self.operator())
    }

    /// The signed results of the one run.
    pub fn results(&self) -> Vec<Value> {
        results_in(&self.run().expect("a run"))
    }

    /// The adapter that the one run came to: that of its best round, which need not be the last.
    pub fn outcome(&self) -> Value {
        outcome_in(&self.operator())
    }
}

/// The signed results in a run's folder.
fn results_in(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("results.jsonl")).expect("the run has results");
    let result = |line| -> Value { serde_json::from_str(line).expect("results are JSON") };
    text.lines()
        .map(|line| result(line)["body"].take())
        .collect()
}

/// The folder of the one run in an operator's directory, once there is one.
fn run_in(operator: &Path) -> Option<PathBuf> {
    let runs = fs::read_dir(operator.join("runs")).ok()?;
    Some(runs.flatten().next()?.path())
}

/// The digest of the adapter that the one run in an operator's directory came to.
pub fn outcome_in(operator: &Path) -> Value {
    let mut command = program("fedlora-aggregator");
    command.args(["status", "--format", "json", "--dir"]);
    let status = Finished::of("status", command.arg(operator)).done();
    let best = status.document()["best_round"].as_u64();
    let before = best.and_then(|round| round.checked_sub(1));
    let at = before.expect("a round lowered the loss");
    let run = run_in(operator).expect("a run");
    results_in(&run)[at as usize]["adapter"].clone()
}

impl Default for Federation {
    fn default() -> Self {
        Self::new()
    }
}

/// A port that is free over UDP and TCP, with the one above it: below those that the system gives to sockets
/// which ask for none, so that none of these takes them before they are used.
pub fn free_port() -> u16 {
    let is_free = |port: u16| {
        let at = (Ipv4Addr::LOCALHOST, port);
        UdpSocket::bind(at).is_ok() && TcpListener::bind(at).is_ok()
    };
    loop {
        let port = rand::random_range(10_000..32_000);
        if is_free(port) && is_free(port + 1) {
            return port;
        }
    }
}
