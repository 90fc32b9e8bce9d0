use std::fs;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_protocol::plan::RunPlan;
use fedlora_transport::pki::Passphrase;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::*;
use crate::audit_log::{self, Event};
use crate::config::AggregatorConfig;
use crate::directory::{Directory, Opened};
use crate::queue::QueuedPlan;
use crate::registry::{InvitationFor, Registry};

/// A directory with three operators, two of whom everything needs.
struct Office {
    folder: tempfile::TempDir,
    directory: Directory,
    opened: Opened,
    keys: [OperatorKey; 3],
}

fn name(text: &str) -> OperatorName {
    text.parse().unwrap()
}

fn member(text: &str) -> MemberName {
    text.parse().unwrap()
}

fn rule(keys: &[OperatorKey; 3], acts: &[ActKind]) -> TwoOperators {
    let operators = ["alice", "bob", "carol"].iter().zip(keys);
    let operators = operators.map(|(name_of, key)| Operator {
        name: name(name_of),
        key: key.public(),
    });
    TwoOperators::new(operators.collect(), acts.iter().copied()).unwrap()
}

impl Office {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = AggregatorConfig::new("test", "127.0.0.1:0".parse().unwrap()).unwrap();
        Directory::init(folder.path(), &config, OffsetDateTime::now_utc()).unwrap();
        let (directory, opened) = Directory::open(folder.path()).unwrap();
        let key = || OperatorKey(IdentityKey::random(&mut os_rng()));
        let office = Self {
            folder,
            directory,
            opened,
            keys: [key(), key(), key()],
        };
        let rule = rule(&office.keys, &ActKind::ALL);
        office.desk(1).begin(rule).unwrap();
        office
    }

    fn desk(&self, now: u64) -> Desk<'_> {
        Desk::hold(&self.directory, &self.opened, now_of(now)).unwrap()
    }

    fn invite(&self, name: &str) -> Act {
        Act::Invite {
            member: member(name),
            hours: 72,
            replaces: None,
        }
    }

    /// What is wrong by the audit log.
    fn findings(&self) -> Vec<String> {
        let verified = audit_log::verify(self.folder.path(), &[]).unwrap();
        verified
            .findings
            .into_iter()
            .map(|one| one.problem)
            .collect()
    }

    fn proposal(&self, id: &Digest) -> PathBuf {
        self.folder
            .path()
            .join("proposals")
            .join(format!("{id}.json"))
    }
}

fn now_of(hours: u64) -> Timestamp {
    // Lines of the log have the clock's own time.
    let now = OffsetDateTime::now_utc().unix_timestamp() as u64 * 1000;
    Timestamp(now + hours * 3_600_000)
}

#[test]
fn what_one_proposes_another_approves_and_the_log_has_both() {
    let office = Office::new();
    let [alice, bob, _] = &office.keys;
    let one = office
        .desk(0)
        .propose(office.invite("hospital-a"), alice)
        .unwrap();
    assert_eq!(office.desk(0).waiting().unwrap().0.len(), 1);
    let id = one.id.to_string();
    // Not whoever has proposed it, nor a stranger; nor by a few digits that may be another's.
    let desk = office.desk(0);
    let same = desk.approve(&id, alice).unwrap_err();
    assert!(
        matches!(same, OperatorsError::SameOperator { .. }),
        "{same}"
    );
    let stranger = OperatorKey(IdentityKey::random(&mut os_rng()));
    let refused = desk.approve(&id, &stranger).unwrap_err();
    assert!(matches!(refused, OperatorsError::Stranger { .. }));
    let short = desk.approve(&id[..7], bob).unwrap_err();
    assert!(matches!(short, OperatorsError::Which { found: 0, .. }));
    let done = desk.approve(&id[..8], bob).unwrap();
    drop(desk);
    assert!(matches!(&done, Approved::Invited(token) if token.name == member("hospital-a")));
    assert_eq!(office.findings(), Vec::<String>::new());
    let entries = audit_log::entries(office.folder.path()).unwrap();
    let words: Vec<_> = entries
        .iter()
        .map(|one| audit_log::words(&one.event))
        .collect();
    assert!(words.contains(&"alice proposes and bob approves: invite hospital-a".to_owned()));

    // A removal, a plan, and a refusal.
    let act = Act::Remove {
        member: member("hospital-a"),
        identity: None,
    };
    let one = office.desk(0).propose(act, bob).unwrap();
    let done = office.desk(0).approve(&one.id.to_string(), alice).unwrap();
    assert!(matches!(done, Approved::Removed(None)));
    let one = office.desk(0).propose(plan(), alice).unwrap();
    let done = office.desk(0).approve(&one.id.to_string(), bob).unwrap();
    assert!(matches!(done, Approved::Queued));
    assert_eq!(office.directory.queue().plans().unwrap().len(), 1);
    let one = office
        .desk(0)
        .propose(office.invite("hospital-b"), alice)
        .unwrap();
    office.desk(0).refuse(&one.id.to_string(), bob).unwrap();
    assert!(!office.proposal(&one.id).exists());
    assert_eq!(office.findings(), Vec::<String>::new());
}

fn plan() -> Act {
    let plan = RunPlan::from_toml(
        "rounds = 2\nmembers = 3\n[adapter]\n\
         lora = { rank = 1, alpha = 1.0, targets = [\"q\"] }\n[training]\nlearning_rate = 0.0003\n",
    );
    let queued = QueuedPlan {
        submitted: Timestamp(7),
        run: RunId([9; 16]),
        keep_for_audit: false,
        plan: plan.unwrap(),
    };
    let text = serde_json::to_vec_pretty(&queued).unwrap();
    Act::Plan {
        queued: Box::new(queued),
        file: audit_log::digest_of(&text),
    }
}

#[test]
fn a_proposal_that_was_changed_decided_or_has_expired_is_refused() {
    let office = Office::new();
    let [alice, bob, carol] = &office.keys;
    let one = office
        .desk(0)
        .propose(office.invite("hospital-a"), alice)
        .unwrap();
    let (id, path) = (one.id.to_string(), office.proposal(&one.id));
    let right = fs::read_to_string(&path).unwrap();
    // Edited: it is another proposal then, which nobody has signed.
    fs::write(&path, right.replace("hospital-a", "hospital-b")).unwrap();
    let error = office.desk(0).approve(&id, bob).unwrap_err();
    assert!(error.to_string().contains("it was changed"), "{error}");
    let (waiting, wrong) = office.desk(0).waiting().unwrap();
    assert_eq!((waiting.len(), wrong.len()), (0, 1));
    // Under its new digest the signature is missing.
    let changed = right.replace("hospital-a", "hospital-b");
    let text: serde_json::Value = serde_json::from_str(&changed).unwrap();
    let other = Proposal::id(text["proposal"].as_str().unwrap());
    fs::write(office.proposal(&other), &changed).unwrap();
    let error = office.desk(0).approve(&other.to_string(), bob).unwrap_err();
    assert!(error.to_string().contains("not signed"), "{error}");
    fs::remove_file(office.proposal(&other)).unwrap();

    fs::write(&path, &right).unwrap();
    let late = office.desk(73).approve(&id, bob).unwrap_err();
    assert!(matches!(late, OperatorsError::Expired { .. }), "{late}");
    office.desk(0).approve(&id, bob).unwrap();
    // Put back, it was decided.
    fs::write(&path, &right).unwrap();
    let again = office.desk(0).approve(&id, carol).unwrap_err();
    assert!(matches!(again, OperatorsError::Decided { .. }), "{again}");
    // A rule is in force: nobody begins another.
    assert!(office.desk(0).begin(rule(&office.keys, &[])).is_err());
    // Somebody joined by the name since.
    let one = office
        .desk(0)
        .propose(office.invite("hospital-c"), alice)
        .unwrap();
    let record = format!(
        "{{\"name\":\"hospital-c\",\"identity\":\"{0}\",\"certificate_key\":\"{0}\",\
         \"serial\":\"00\",\"joined\":1}}",
        "11".repeat(32)
    );
    fs::write(office.directory.members().join("hospital-c.json"), record).unwrap();
    let error = office
        .desk(0)
        .approve(&one.id.to_string(), bob)
        .unwrap_err();
    assert!(matches!(error, OperatorsError::Changed { .. }), "{error}");
    // Expired ones are cleared away.
    assert_eq!(office.desk(80).waiting().unwrap().0.len(), 0);
    assert!(!office.proposal(&one.id).exists());
}

/// What somebody does who has the directory, and no second operator: it does not count, and the log's own
/// verification names it.
#[test]
fn what_one_does_alone_does_not_count_and_is_found() {
    let office = Office::new();
    let registry = Registry::new(office.directory.clone());
    let authority = office.opened.authority.fingerprint();
    let what = (member("hospital-a"), InvitationFor::NewMember);
    let token = registry
        .invite(what, "x:1".into(), authority, Timestamp(u64::MAX))
        .unwrap();
    let file = registry
        .invitation_file(&token.name, &token.secret, Timestamp(1))
        .unwrap();
    let ledger = || of_directory(&office.directory, &office.opened.identity.public()).unwrap();
    let refused = ledger().check(ActKind::Admission, &file.0, &file.1);
    assert!(matches!(refused, Err(OperatorsError::NotApproved { .. })));
    let Act::Plan { queued, .. } = plan() else {
        panic!("a plan");
    };
    office.directory.queue().submit(&queued).unwrap();
    let content = office
        .directory
        .queue()
        .content(queued.run)
        .unwrap()
        .unwrap();
    let path = format!("queue/{}.json", queued.run);
    assert!(ledger().check(ActKind::Plans, &path, &content).is_err());
    // A rule that lets everybody act alone, of one operator's making, changes nothing.
    let weaker = Event::Operators {
        rule: rule(&office.keys, &[]),
    };
    office.directory.note(weaker).unwrap();
    assert!(ledger().rule_for(ActKind::Plans).is_some());
    registry.remove(&member("hospital-a")).unwrap();
    let found = office.findings();
    for words in [
        "hospital-a is invited",
        "the plan of run",
        "operators are changed",
    ] {
        let told = found.iter().filter(|one| one.contains(words));
        assert_eq!(told.count(), 1, "{words}: {found:#?}");
    }
    // Two operators can change the rule.
    let [alice, bob, _] = &office.keys;
    let none = Act::Rule(rule(&office.keys, &[]));
    let one = office.desk(0).propose(none, alice).unwrap();
    office.desk(0).approve(&one.id.to_string(), bob).unwrap();
    assert!(ledger().rule().is_none());
    assert!(
        ledger()
            .check(ActKind::Admission, &file.0, b"other")
            .is_ok()
    );
}

#[test]
fn an_approval_is_of_one_plan_and_one_file() {
    let office = Office::new();
    let [alice, bob, _] = &office.keys;
    let Act::Plan { queued, file } = plan() else {
        panic!("a plan");
    };
    // A digest that is not the plan's: the other operator would sign what is not shown.
    let mut other = queued.clone();
    other.keep_for_audit = true;
    let act = Act::Plan {
        queued: other.clone(),
        file,
    };
    let one = office.desk(0).propose(act, alice).unwrap();
    let error = office
        .desk(0)
        .approve(&one.id.to_string(), bob)
        .unwrap_err();
    assert!(matches!(error, OperatorsError::Changed { .. }), "{error}");
    // Approved, and then another content in the file.
    let one = office.desk(0).propose(plan(), alice).unwrap();
    office.desk(0).approve(&one.id.to_string(), bob).unwrap();
    let ledger = of_directory(&office.directory, &office.opened.identity.public()).unwrap();
    let path = format!("queue/{}.json", queued.run);
    let content = office
        .directory
        .queue()
        .content(queued.run)
        .unwrap()
        .unwrap();
    ledger.check(ActKind::Plans, &path, &content).unwrap();
    let other = serde_json::to_vec_pretty(&other).unwrap();
    assert!(ledger.check(ActKind::Plans, &path, &other).is_err());
}

#[test]
fn a_rule_has_two_operators_or_more_each_with_its_own_key() {
    let key = |byte| IdentityPublic::from_bytes([byte; 32]);
    let operator = |text: &str, byte| Operator {
        name: name(text),
        key: key(byte),
    };
    let new = |operators: Vec<Operator>| TwoOperators::new(operators, ActKind::ALL);
    assert!(new(vec![operator("alice", 1), operator("bob", 2)]).is_ok());
    for wrong in [
        vec![],
        vec![operator("alice", 1)],
        vec![operator("alice", 1), operator("alice", 2)],
        vec![operator("alice", 1), operator("bob", 1)],
    ] {
        assert!(matches!(new(wrong), Err(OperatorsError::Operators)));
    }
    // Nor by a proposal that no command has written.
    let office = Office::new();
    let [alice, bob, _] = &office.keys;
    let mut one = rule(&office.keys, &ActKind::ALL);
    one.operators.truncate(1);
    let one = office.desk(0).propose(Act::Rule(one), alice).unwrap();
    let refused = office.desk(0).approve(&one.id.to_string(), bob);
    assert!(matches!(refused, Err(OperatorsError::Operators)));
}

#[test]
fn an_operators_key_is_sealed_and_opens_with_its_passphrase_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alice.key");
    let pass = |text: &str| Passphrase::chosen(Zeroizing::new(text.to_owned())).unwrap();
    let right = pass("correct horse battery");
    let public = OperatorKey::make(&path, &right).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let opened = OperatorKey::open(&path, &right).unwrap();
    assert_eq!(opened.public(), public);
    assert!(OperatorKey::open(&path, &pass("staple wrong horse")).is_err());
    // It is not overwritten, and the authority's key is none.
    assert!(OperatorKey::make(&path, &right).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let other: &Path = &folder.path().join("other.key");
    let key = fedlora_transport::TlsKeyPair::generate().unwrap().to_pem();
    let sealed = fedlora_transport::pki::seal(&key, &right, &mut os_rng()).unwrap();
    fs::write(other, sealed).unwrap();
    assert!(OperatorKey::open(other, &right).is_err());
}
