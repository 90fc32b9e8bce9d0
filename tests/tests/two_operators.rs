//! Acts that need two operators, by the commands: one proposes, another approves; what one does alone is
//! refused by the commands and by `serve`, and stands in the audit log.

use std::fs;
use std::path::PathBuf;

use fedlora_tests::{Federation, Finished, StoreKind, program};
use serde_json::{Value, json};

const PLAN: &str = "rounds = 1\nmembers = 3\nbase.name = \"test-base\"\n\
     [adapter]\nlora = { rank = 2, alpha = 4.0, targets = [\"q\"] }\n";

/// A federation with three operators, and the files of their keys.
struct Office {
    federation: Federation,
    keys: Vec<String>,
}

impl Office {
    fn new() -> Self {
        let mut office = Self {
            federation: Federation::new(),
            keys: Vec::new(),
        };
        for name in ["alice", "bob", "carol"] {
            let passphrase = office.passphrase(name);
            fs::write(&passphrase, format!("passphrase of {name}\n")).expect("a file");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(&passphrase, mode).expect("a mode can be set");
            }
            let mut keygen = program("fedlora-aggregator");
            keygen.args(["operator", "keygen", "--format", "json"]);
            keygen.arg(office.key(name));
            keygen.arg("--operator-passphrase-file").arg(passphrase);
            let made = Finished::of("keygen", &mut keygen).done().document();
            let key = made["key"].as_str().expect("a key");
            office.keys.push(format!("{name}={key}"));
        }
        office
    }

    fn key(&self, name: &str) -> PathBuf {
        self.federation.folder().join(format!("{name}.key"))
    }

    fn passphrase(&self, name: &str) -> PathBuf {
        self.federation.folder().join(format!("{name}.passphrase"))
    }

    /// A command of the operator's, with somebody's key or without one.
    fn run(&self, command: &[&str], by: Option<&str>) -> Finished {
        let mut run = program("fedlora-aggregator");
        run.args(command).args(["--format", "json", "--dir"]);
        run.arg(self.federation.operator());
        if let Some(name) = by {
            run.arg("--operator-key").arg(self.key(name));
            let file = self.passphrase(name);
            run.arg("--operator-passphrase-file").arg(file);
        }
        Finished::of(&command.join(" "), &mut run)
    }

    fn require(&self, more: &[&str], by: Option<&str>) -> Finished {
        let keys = self.keys.iter().map(String::as_str);
        let command: Vec<_> = ["operator", "require"]
            .into_iter()
            .chain(keys)
            .chain(more.iter().copied())
            .collect();
        self.run(&command, by)
    }

    /// Proposes an act; gives the proposal's name.
    fn propose(&self, command: &[&str], by: &str) -> String {
        let proposed = self.run(command, Some(by)).done().document();
        let id = proposed["proposal"].as_str().expect("a proposal");
        id.to_owned()
    }

    fn approve(&self, id: &str, by: &str) -> Finished {
        self.run(&["operator", "approve", id], Some(by))
    }

    fn log(&self) -> Finished {
        self.run(&["audit", "log", "--last", "1000"], None)
    }
}

#[test]
fn a_member_comes_and_goes_by_the_word_of_two_operators() {
    let office = Office::new();
    let federation = &office.federation;
    // Before there is a rule an invitation is one operator's matter; afterwards it does not count.
    let before = federation.invite("hospital-b");
    office
        .run(&["invite", "hospital-a"], Some("alice"))
        .failed(2, &["may do this alone"]);
    office.require(&[], None).done();
    let _aggregator = federation.serve_all();
    let join = |token: &str, home: &str| Finished::of("join", &mut federation.joining(token, home));
    join(&before, "before").failed(4, &["not approved by two operators"]);

    let alone = [
        "two operators (admission)",
        "--operator-key",
        "operator approve",
    ];
    office
        .run(&["invite", "hospital-a"], None)
        .failed(4, &alone);
    let id = office.propose(&["invite", "hospital-a"], "alice");
    // Nothing is done so far.
    assert!(
        !federation
            .operator()
            .join("invitations/hospital-a.json")
            .exists()
    );
    let listed = office.run(&["operator", "list"], None).done().document();
    assert_eq!(listed["proposals"][0]["what"], "invite hospital-a");
    assert_eq!(listed["acts"], json!(["admission", "removal", "plans"]));
    let shown = office
        .run(&["operator", "show", &id[..8]], None)
        .done()
        .document();
    assert_eq!(shown["act"]["member"], "hospital-a");
    office
        .approve(&id, "alice")
        .failed(4, &["alice has proposed this"]);
    let approved = office.approve(&id, "bob").done().document();
    let token = approved["token"].as_str().expect("a token");
    join(token, "first").done();
    office.approve(&id, "carol").failed(1, &["0 proposals"]);

    office
        .run(&["remove", "hospital-a"], None)
        .failed(4, &["removal"]);
    let id = office.propose(&["remove", "hospital-a"], "bob");
    let roster = || federation.roster()["members"].as_array().map(Vec::len);
    assert_eq!(roster(), Some(1));
    let removed = office.approve(&id, "carol").done().document();
    assert_eq!(removed["member"], "hospital-a");
    assert_eq!(roster(), Some(0));

    let log = office.log().done().document();
    let lines = log["log"].as_array().expect("lines");
    let approvals = lines
        .iter()
        .filter(|line| line["event"]["kind"] == "approved");
    let by = |line: &Value, role: &str| line["event"][role]["operator"].clone();
    let pairs: Vec<_> = approvals
        .map(|line| (by(line, "proposed"), by(line, "approved")))
        .collect();
    let pair = |one: &str, two: &str| (json!(one), json!(two));
    assert_eq!(pairs, [pair("alice", "bob"), pair("bob", "carol")]);
}

#[test]
fn a_plan_runs_if_two_operators_approved_it_and_the_rule_ends_by_two_alone() {
    let office = Office::new();
    let federation = &office.federation;
    office.require(&["--act", "plans"], None).done();
    // Of admission one operator decides still.
    federation.invite("hospital-a");
    let path = federation.folder().join("a-plan.toml");
    fs::write(&path, PLAN).expect("a plan can be written");
    let plan = path.to_str().expect("a plain path");
    office
        .run(&["run", "submit", plan], None)
        .failed(4, &["two operators (plans)"]);
    let words = ["on the word of one", "run submit --operator-key"];
    Finished::of("serve", &mut federation.serving(PLAN)).failed(4, &words);

    let id = office.propose(&["run", "submit", plan], "alice");
    let approved = office.approve(&id, "bob").done().document();
    let run = approved["run"].as_str().expect("a run").to_owned();
    let path = federation
        .operator()
        .join("queue")
        .join(format!("{run}.json"));
    let right = fs::read_to_string(&path).expect("the plan is queued");
    // The newest line's file may be unfinished after a crash: here it is not the newest.
    federation.invite("hospital-b");
    let changed = right.replace("\"rounds\": 1", "\"rounds\": 9");
    assert_ne!(changed, right);
    fs::write(&path, changed).expect("the file can be changed");
    let mut aggregator = federation.serve_all();
    if StoreKind::asked().is_some() {
        // The database has the plan as it was approved: the file is made that again.
        aggregator.wait_for("waiting for members");
        let found = fs::read_to_string(&path).expect("the plan is queued");
        assert_eq!(found, right);
    } else {
        aggregator.wait_for("the plan is not carried out");
        assert!(!federation.operator().join("runs").join(&run).exists());
    }
    aggregator.kill();
    fs::write(&path, right).expect("the file can be changed");
    let mut aggregator = federation.serve_all();
    aggregator.wait_for("waiting for members");
    aggregator.kill();

    // One alone does not end the rule; nor does a line that the aggregator's key signs.
    office
        .require(&["--none"], None)
        .failed(4, &["a rule is in force", "--operator-key"]);
    let mut none: Vec<_> = vec!["operator", "require"];
    none.extend(office.keys.iter().map(String::as_str));
    none.push("--none");
    let id = office.propose(&none, "carol");
    // Edited between: it is refused by its digest.
    let file = federation
        .operator()
        .join("proposals")
        .join(format!("{id}.json"));
    let text = fs::read_to_string(&file).expect("the proposal");
    fs::write(&file, text.replace("hours", "days").replace("made", "fade")).expect("a file");
    office.approve(&id, "alice").failed(9, &["it was changed"]);
    fs::write(&file, text).expect("a file");
    office.approve(&id, "alice").done();
    let submitted = office.run(&["run", "submit", plan], None).done().document();
    assert!(submitted["run"].is_string());
    office.log().done();
}
