//! How members come, stay and go: joining that is safe to repeat, certificates that are renewed, keys
//! that are replaced, members that are removed.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fedlora_aggregator::directory::Directory;
use fedlora_protocol::crypto::os_rng;
use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, program, wait_for};
use fedlora_transport::{Certificate, Peer, TlsKeyPair};
use serde_json::{Value, json};

fn plan(members: usize, steps: u32) -> String {
    format!(
        "rounds = 2\nmembers = {members}\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = 2, alpha = 4.0, targets = [\"q\"] }}\n\
         [training]\nsteps = {steps}\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [timeouts]\njoin = 100\nkeys = 60\nshares = 60\nupdate = 200\nconfirm = 60\n\
         reveal = 60\nreconnect = 3\n"
    )
}

fn identity(joined: &Finished) -> Value {
    joined.document()["identity"].clone()
}

fn join(federation: &Federation, token: &str, home: &str) -> Finished {
    let mut command = federation.joining(token, home);
    Finished::of("join", command.args(["--format", "json"]))
}

/// The answer to a join is lost, as on a full disk: the same keys join again with the same token, and
/// nobody else does.
#[test]
fn a_join_whose_answer_was_lost_is_repeated() {
    let federation = Federation::new();
    let _aggregator = federation.serve(&plan(3, 1));
    let token = federation.invite("hospital-a");
    // A folder in the certificate's place: it cannot be written.
    let home = federation.home("hospital-a");
    let in_the_way = home.join("tls.pem/held");
    fs::create_dir_all(&in_the_way).expect("a folder can be made");
    join(&federation, &token, "hospital-a").failed(1, &["tls.pem"]);
    assert!(!home.join("fedlora.toml").exists());
    assert!(
        federation
            .operator()
            .join("members/hospital-a.json")
            .exists()
    );

    // Others have got hold of the token.
    join(&federation, &token, "impostor").failed(4, &["used by somebody else's keys"]);
    fs::remove_dir_all(home.join("tls.pem")).expect("the folder can be removed");
    let joined = join(&federation, &token, "hospital-a").done();
    let roster = federation.roster();
    assert_eq!(roster["members"].as_array().map(Vec::len), Some(1));
    assert_eq!(roster["members"][0]["fingerprint"], identity(&joined));
    // What holds keys is its owner's alone, whatever the mask.
    #[cfg(unix)]
    for folder in [federation.operator(), federation.home("impostor")] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&folder)
            .expect("a folder")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
}

#[test]
fn a_member_gets_other_keys_or_is_removed() {
    let federation = Federation::new();
    let _aggregator = federation.serve(&plan(3, 1));
    let command = |name: &str, member: &str| {
        let mut command = federation.operate(name);
        Finished::of(name, command.arg(member).args(["--format", "json"]))
    };
    command("re-key", "hospital-a").failed(4, &["no member has the name hospital-a"]);
    command("remove", "hospital-a").failed(4, &["no member has the name hospital-a"]);
    let first = join(&federation, &federation.invite("hospital-a"), "first").done();
    command("invite", "hospital-a").failed(4, &["has joined already", "re-key", "remove"]);

    let token = command("re-key", "hospital-a").done().document()["token"].clone();
    // Until it is used the former keys serve.
    assert_eq!(
        federation.roster()["members"][0]["fingerprint"],
        identity(&first)
    );
    let token = token.as_str().expect("a token");
    let second = join(&federation, token, "second").done();
    assert_ne!(identity(&first), identity(&second));
    assert_eq!(
        federation.roster()["members"][0]["fingerprint"],
        identity(&second)
    );
    let run = |home: &str| {
        let base = fedlora_tests::repository().join("examples/assets/base");
        let data = federation.data(INSTITUTIONS[0], "train");
        let mut command = federation.asked_to_take_part(home, &base, &data);
        Finished::of("run", &mut command)
    };
    run("first").failed(
        4,
        &["hospital-a is not a member of this federation any more"],
    );

    let removed = command("remove", "hospital-a").done().document();
    assert_eq!(removed["identity"], identity(&second));
    assert_eq!(federation.roster()["members"], json!([]));
    run("second").failed(4, &["not a member"]);
    // Neither does its invitation bring it back; another may have the name.
    join(&federation, token, "second-again").failed(4, &["no open invitation"]);
    join(&federation, &federation.invite("hospital-a"), "third").done();
}

/// In a round: the others go on, and it is told at once.
#[test]
fn a_removed_member_is_out_of_the_run_at_once() {
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan(5, 40));
    for member in INSTITUTIONS {
        federation.join(member);
    }
    let mut running: Vec<Running> = INSTITUTIONS
        .iter()
        .map(|member| federation.start(member))
        .collect();
    // The round waits for this one, wherever it is.
    aggregator.wait_for("the round opens");
    let out = running.pop().expect("five members");
    out.freeze();
    Finished::of("remove", federation.operate("remove").arg(INSTITUTIONS[4])).done();
    aggregator.wait_for("is not a member of this federation any more");
    out.thaw();
    out.finish().failed(
        4,
        &[INSTITUTIONS[4], "not a member of this federation any more"],
    );
    for member in running {
        assert_eq!(member.finish().done().document()["rounds"], 2);
    }
    aggregator.finish().done();
    // Its update may have been there already in the first round.
    let results = federation.results();
    let first = results[0]["survivors"].as_array().expect("members");
    assert_eq!(first[..4], [0, 1, 2, 3]);
    assert_eq!(results[1]["survivors"], json!([0, 1, 2, 3]));
}

/// A certificate that is in its second half is replaced as its member connects.
#[test]
fn a_members_certificate_is_renewed_as_it_connects() {
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan(3, 1));
    let name = INSTITUTIONS[0];
    federation.join(name);
    let home = federation.home(name);
    let read = |path: &Path| fs::read_to_string(path).expect("it is there");
    let key = TlsKeyPair::from_pem(&read(&home.join("tls.key"))).expect("a key");
    let (_, operator) = Directory::open(&federation.operator()).expect("the operator's directory");
    let request = key.signing_request().expect("a request");
    let from = SystemTime::now() - Duration::from_secs(200 * 86_400);
    let issued = operator.authority.sign(|authority| {
        let name = name.parse().expect("a name");
        authority.issue_member_certificate(&request, &name, from.into(), 365, &mut os_rng())
    });
    let old = issued.expect("a certificate").pem();
    let path = home.join("tls.pem");
    fs::write(&path, &old).expect("the certificate can be written");
    let member = federation.start(name);
    aggregator.wait_for("the member's certificate is renewed");
    wait_for(
        "the new certificate",
        || member.stderr(),
        || (read(&path) != old).then_some(()),
    );
    member.kill();
    let peer = |pem: &str| {
        let certificate = Certificate::from_pem(pem).expect("a certificate");
        Peer::from_certificate(&certificate).expect("a member's")
    };
    let (before, after) = (peer(&old), peer(&read(&path)));
    assert_eq!((&before.name, before.key), (&after.name, after.key));
    assert!(after.not_after.0 > before.not_after.0 + 190 * 86_400_000);
    // It serves, and is not replaced again.
    let mut member = federation.start(name);
    let renewed = read(&path);
    member.wait_for("2 rounds of 1 steps");
    assert_eq!(read(&path), renewed);
}

#[test]
fn an_address_that_nobody_could_reach_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let init = |more: &[&str]| {
        let mut command = program("fedlora-aggregator");
        command
            .args(["init", "--name", "test", "--dir"])
            .arg(folder.path().join("operator"))
            .args(more);
        Finished::of("init", &mut command)
    };
    init(&["--listen", "0.0.0.0:4433"]).failed(2, &["0.0.0.0:4433", "hint:", "--advertise"]);
    let all = ["--listen", "0.0.0.0:4433", "--advertise"];
    let with = |advertise| init(&[&all[..], &[advertise]].concat());
    with("fed example").failed(2, &["'fed example' is no host"]);
    let done = with("fed.example.org").done();
    assert!(
        done.stdout.contains("fed.example.org:4433"),
        "{}",
        done.stdout
    );
    assert!(
        done.stdout.contains("fed.example.org:4434"),
        "{}",
        done.stdout
    );
}

/// No core dump holds the keys of a program that serves or takes part.
#[cfg(target_os = "linux")]
#[test]
fn memory_with_keys_is_not_dumped() {
    let federation = Federation::new();
    let aggregator = federation.serve(&plan(3, 1));
    federation.join(INSTITUTIONS[0]);
    let mut member = federation.start(INSTITUTIONS[0]);
    member.wait_for("2 rounds of 1 steps");
    for program in [&aggregator, &member] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", program.id()));
        let limits = limits.expect("the system tells");
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<_> = core.expect("a limit").split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{words:?}");
    }
}

/// A directory serves one process, and a copy of it another member's keys to nobody: the one that took part
/// first ends, says why, and has told the operator; the one that stays is told as well.
#[test]
fn a_copy_of_a_members_directory_is_noticed_and_told_to_member_and_operator() {
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan(3, 1));
    let (name, copy) = (INSTITUTIONS[0], "copy");
    federation.join(name);
    let mut first = federation.start(name);
    first.wait_for("waiting for the other members");
    // In the same directory it is refused before it connects.
    federation
        .start(name)
        .finish()
        .failed(1, &["another process takes part with"]);

    fs::create_dir_all(federation.home(copy)).expect("a folder can be made");
    for entry in fs::read_dir(federation.home(name)).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.is_file() {
            let to = federation
                .home(copy)
                .join(path.file_name().expect("a name"));
            fs::copy(&path, to).expect("a file can be copied");
        }
    }
    let base = fedlora_tests::repository().join("examples/assets/base");
    let data = federation.data(name, "train");
    let mut second = federation.taking_part_with(copy, &base, &data);
    let mut second = Running::start(copy, &mut second);
    let words = [
        "another process has connected with this member's keys",
        "re-key",
    ];
    first.finish().failed(4, &words);
    aggregator.wait_for("a copy of the member's directory may be in use");
    assert!(
        aggregator.stderr().contains(name),
        "{}",
        aggregator.stderr()
    );
    // The newer one stays, and nobody puts it out. It is told too: it may be the copy.
    second.wait_for("a copy of its directory may be in use");
    second.wait_for("waiting for the other members");
    assert!(
        !second.stderr().contains("trying again"),
        "{}",
        second.stderr()
    );
}

/// A member that leaves is no member from then on, and its keys are gone; receipts stay.
#[test]
fn a_member_leaves_for_good() {
    let federation = Federation::new();
    let mut aggregator = federation.serve_all();
    let leave = |member: &str, more: &[&str]| {
        let mut command = federation.member(member, &["leave"]);
        Finished::of("leave", command.args(more))
    };
    for member in &INSTITUTIONS[..4] {
        federation.join(member);
    }
    // Long enough that all of them still take part.
    federation.submit(&plan(4, 40));
    let taking_part: Vec<_> = INSTITUTIONS[..4]
        .iter()
        .map(|member| federation.start(member))
        .collect();
    aggregator.wait_for("the round opens");
    // One that takes part must end first.
    leave(INSTITUTIONS[3], &["--yes"]).failed(1, &["takes part with"]);
    for member in taking_part {
        member.finish().done();
    }
    leave(INSTITUTIONS[3], &[]).failed(2, &["for good", "--yes"]);
    assert_eq!(
        federation.roster()["members"].as_array().map(Vec::len),
        Some(4)
    );
    leave(INSTITUTIONS[3], &["--yes"]).done();
    assert_eq!(
        federation.roster()["members"].as_array().map(Vec::len),
        Some(3)
    );
    let home = federation.home(INSTITUTIONS[3]);
    for gone in ["fedlora.toml", "identity.key", "tls.key"] {
        assert!(!home.join(gone).exists(), "{gone}");
    }
    assert!(home.join("fedlora.toml.left").exists());
    assert!(home.join("adapter/adapter_config.json").exists());
    leave(INSTITUTIONS[3], &["--yes"]).failed(3, &["holds no membership"]);
    assert!(aggregator.stderr().contains("has left the federation"));
    // The others go on, and the name can be given again.
    federation.submit(&plan(3, 1));
    let taking_part: Vec<_> = INSTITUTIONS[..3]
        .iter()
        .map(|member| federation.start(member))
        .collect();
    for member in taking_part {
        member.finish().done();
    }
    fs::rename(&home, federation.home("old")).expect("a folder can be moved");
    federation.join(INSTITUTIONS[3]);
    // Nobody answers any more.
    aggregator.interrupt();
    aggregator.finish();
    leave(INSTITUTIONS[3], &["--yes"]).failed(5, &["--only-here"]);
    leave(INSTITUTIONS[3], &["--yes", "--only-here"]).done();
    assert!(!home.join("identity.key").exists());
}
