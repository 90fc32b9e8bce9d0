//! The key of the certificate authority, sealed by a passphrase: what goes on without it, what waits, and
//! what the commands say of a passphrase that is wrong, empty or not given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use fedlora_aggregator::ca::passphrase::PassphraseSource;
use fedlora_aggregator::directory::Directory;
use fedlora_protocol::crypto::os_rng;
use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, wait_for};
use fedlora_transport::TlsKeyPair;
use serde_json::{Value, json};

const PLAN: &str = "rounds = 2\nmembers = 3\nbase.name = \"test-base\"\n\
     [adapter]\nlora = { rank = 2, alpha = 4.0, targets = [\"q\"] }\n\
     [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
     learning_rate = 0.001\nschedule = \"constant\"\n[timeouts]\njoin = 100\n";
const RIGHT: &str = "correct horse battery";
const OTHER: &str = "staple wrong horse";

/// A file with a passphrase that only its owner can read.
fn file(federation: &Federation, name: &str, text: &str) -> PathBuf {
    let path = federation.folder().join(name);
    fs::write(&path, text).expect("a file can be written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&path, mode).expect("a mode can be set");
    }
    path
}

fn ca(federation: &Federation, command: &str) -> Command {
    let mut operate = fedlora_tests::program("fedlora-aggregator");
    operate.args(["ca", command, "--format", "json", "--dir"]);
    operate.arg(federation.operator());
    operate
}

fn with(mut command: Command, option: &str, file: &Path) -> Finished {
    Finished::of("ca", command.arg(option).arg(file))
}

/// The same command with a file as its standard input.
fn reading(command: &Command, input: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$0\" \"$@\" < \"$INPUT\""])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("INPUT", input);
    shell
}

fn key_text(federation: &Federation) -> String {
    fs::read_to_string(federation.operator().join("ca.key")).expect("the key is there")
}

fn is_sealed(federation: &Federation) -> bool {
    key_text(federation).starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

fn waiting(federation: &Federation) -> Value {
    let mut command = ca(federation, "show");
    Finished::of("show", &mut command).done().document()["waiting"].take()
}

fn join(federation: &Federation, token: &str, member: &str) -> Finished {
    Finished::of("join", &mut federation.joining(token, member))
}

#[test]
fn a_key_is_sealed_changed_and_unsealed_and_each_wrong_passphrase_is_told() {
    let federation = Federation::new();
    let clear = key_text(&federation);
    let right = file(&federation, "right", &format!("{RIGHT}\n"));
    let other = file(&federation, "other", OTHER);
    let (short, empty) = (
        file(&federation, "short", "short\n"),
        file(&federation, "empty", ""),
    );
    let option = "--passphrase-file";
    // Nobody can be asked: standard input is no terminal.
    let mut seal = ca(&federation, "seal");
    Finished::of("seal", &mut seal).failed(2, &["no terminal", "--passphrase-file"]);
    with(ca(&federation, "seal"), option, &short).failed(3, &["short", "at least 12"]);
    with(ca(&federation, "seal"), option, &empty).failed(3, &["empty"]);
    let nowhere = federation.folder().join("nowhere");
    with(ca(&federation, "seal"), option, &nowhere).failed(3, &["nowhere"]);
    with(ca(&federation, "unseal"), option, &right).failed(4, &["not sealed", "ca seal"]);
    assert_eq!(key_text(&federation), clear);

    let sealed = with(ca(&federation, "seal"), option, &right).done();
    assert_eq!(sealed.document()["ca_key"], "sealed");
    assert!(is_sealed(&federation) && !sealed.stderr.contains(RIGHT));
    with(ca(&federation, "seal"), option, &right)
        .failed(4, &["sealed already", "change-passphrase"]);
    // Commands that need no key ask for nothing.
    federation.invite("hospital-a");
    assert_eq!(federation.roster()["members"], json!([]));
    let before = key_text(&federation);
    let wrong = with(ca(&federation, "unseal"), option, &other);
    let wrong = wrong.failed(4, &["ca.key", "does not open"]);
    assert!(!wrong.stderr.contains(OTHER));
    with(ca(&federation, "unseal"), option, &empty).failed(3, &["empty"]);
    Finished::of("unseal", &mut ca(&federation, "unseal")).failed(2, &["no terminal"]);
    assert_eq!(key_text(&federation), before);

    // Both passphrases from standard input, a line each.
    let both = file(&federation, "both", &format!("{RIGHT}\n{OTHER}\n"));
    let mut change = ca(&federation, "change-passphrase");
    change.args(["--passphrase-file", "-", "--new-passphrase-file", "-"]);
    Finished::of("change", &mut reading(&change, &both)).done();
    with(ca(&federation, "unseal"), option, &right).failed(4, &["does not open"]);
    let unsealed = with(ca(&federation, "unseal"), option, &other).done();
    assert_eq!(unsealed.document()["ca_key"], "clear");
    assert!(!is_sealed(&federation));
    for gone in ["server.key", "server.pem", "ca.key.tmp"] {
        assert!(!federation.operator().join(gone).exists(), "{gone}");
    }
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        let file = fs::metadata(federation.operator().join(name)).expect("a file");
        file.permissions().mode() & 0o777
    };
    assert_eq!(mode("ca.key"), 0o600);
}

/// Without the passphrase members go on with the certificates that they have. Who joins, and whose
/// certificate ends, waits until the key was used.
#[test]
fn what_needs_the_sealed_key_waits_until_it_is_signed() {
    let federation = Federation::sealed(RIGHT);
    assert!(is_sealed(&federation));
    let right = file(&federation, "right", RIGHT);
    let other = file(&federation, "other", OTHER);
    assert_eq!(waiting(&federation), json!([]));
    // Nothing to sign, nobody to ask.
    let done = Finished::of("sign", &mut ca(&federation, "sign")).done();
    assert_eq!(done.document()["certificates"], json!([]));

    let mut aggregator = federation.serve(PLAN);
    assert!(aggregator.stderr().contains("no passphrase was given"));
    let name = INSTITUTIONS[0];
    let token = federation.invite(name);
    for _ in 0..2 {
        join(&federation, &token, name).failed(4, &["waits for the operator", "join again"]);
    }
    aggregator.wait_for("a certificate waits for the authority's key");
    // Others have got hold of the token.
    join(&federation, &token, "impostor").failed(4, &["used by somebody else's keys"]);
    let of_join = |waiting: &Value| (waiting[0]["kind"].clone(), waiting[0]["member"].clone());
    assert_eq!(of_join(&waiting(&federation)), (json!("join"), json!(name)));
    let status = Finished::of(
        "status",
        federation.operate("status").args(["--format", "json"]),
    );
    let status = status.done().document();
    assert_eq!(
        of_join(&status["certificates_waiting"]),
        (json!("join"), json!(name))
    );
    let told = Finished::of("status", &mut federation.operate("status")).done();
    assert!(told.stderr.contains("ca sign") && told.stderr.contains(name));

    let option = "--passphrase-file";
    with(ca(&federation, "sign"), option, &other).failed(4, &["does not open"]);
    join(&federation, &token, name).failed(4, &["waits for the operator"]);
    let signed = with(ca(&federation, "sign"), option, &right)
        .done()
        .document();
    assert_eq!(signed["certificates"][0]["member"], name);
    assert_eq!(signed["certificates"][0]["refused"], Value::Null);
    join(&federation, &token, "impostor").failed(4, &["used by somebody else's keys"]);
    join(&federation, &token, name).done();
    federation.allow_short_training(name);
    let roster = federation.roster();
    assert_eq!(roster["members"].as_array().map(Vec::len), Some(1));

    // Somebody who is not wanted any more gets nothing.
    let withdrawn = federation.invite("hospital-b");
    join(&federation, &withdrawn, "hospital-b").failed(4, &["waits for the operator"]);
    Finished::of("remove", federation.operate("remove").arg("hospital-b")).done();
    assert_eq!(waiting(&federation), json!([]));

    // A certificate in its second half.
    let home = federation.home(name);
    let old = aged(&federation, &home, name);
    let path = home.join("tls.pem");
    let current = || fs::read_to_string(&path).expect("a certificate");
    let member = federation.start(name);
    aggregator.wait_for("kind=\"renewal\"");
    member.kill();
    assert_eq!(current(), old);
    assert_eq!(waiting(&federation)[0]["kind"], "renewal");
    with(ca(&federation, "sign"), option, &right).done();
    let member = federation.start(name);
    aggregator.wait_for("the member's certificate is renewed");
    wait_for(
        "the new certificate",
        || member.stderr(),
        || (current() != old).then_some(()),
    );
    member.kill();
    // It serves, and what was signed is not kept for ever.
    let mut member = federation.start(name);
    member.wait_for("2 rounds of 1 steps");
    assert_eq!(waiting(&federation), json!([]));
    let answers = fs::read_dir(federation.operator().join("ca-answers")).expect("a folder");
    assert_eq!(answers.count(), 0);
}

/// Puts a certificate that is in its second half in the place of the member's own.
fn aged(federation: &Federation, home: &Path, name: &str) -> String {
    let read = |path: &Path| fs::read_to_string(path).expect("it is there");
    let key = TlsKeyPair::from_pem(&read(&home.join("tls.key"))).expect("a key");
    let (_, operator) = Directory::open(&federation.operator()).expect("the operator's directory");
    let source = PassphraseSource::File(federation.folder().join("right"));
    let operator = operator.with_passphrase(Some(&source)).expect("it opens");
    let request = key.signing_request().expect("a request");
    let from = SystemTime::now() - Duration::from_secs(200 * 86_400);
    let issued = operator.authority.sign(|authority| {
        let name = name.parse().expect("a name");
        authority.issue_member_certificate(&request, &name, from.into(), 365, &mut os_rng())
    });
    let old = issued.expect("a certificate").pem();
    fs::write(home.join("tls.pem"), &old).expect("the certificate can be written");
    old
}

#[test]
fn serve_takes_the_passphrase_from_a_file_a_credential_or_standard_input() {
    let federation = Federation::sealed(RIGHT);
    let right = file(&federation, "right", RIGHT);
    let other = file(&federation, "other", OTHER);
    let serve = || federation.operate("serve");
    // A wrong one is told before anything is served.
    let option = "--passphrase-file";
    with(serve(), option, &other).failed(4, &["ca.key", "does not open"]);
    with(serve(), option, &federation.folder().join("nowhere")).failed(3, &["nowhere"]);

    let credentials = federation.folder().join("credentials");
    fs::create_dir(&credentials).expect("a folder can be made");
    fs::copy(&right, credentials.join("ca-passphrase")).expect("it can be copied");
    let mut by_file = serve();
    by_file.arg(option).arg(&right);
    let mut by_credential = serve();
    by_credential.env("CREDENTIALS_DIRECTORY", &credentials);
    let mut by_line = serve();
    by_line.args([option, "-"]);
    let by_line = reading(&by_line, &right);
    for (number, mut command) in [by_file, by_credential, by_line].into_iter().enumerate() {
        let mut aggregator = Running::start("the aggregator", &mut command);
        aggregator.wait_for("members can connect");
        let member = INSTITUTIONS[number];
        join(&federation, &federation.invite(member), member).done();
        assert!(!aggregator.stderr().contains("no passphrase was given"));
        aggregator.interrupt();
        let ended = aggregator.finish();
        assert!(!ended.stderr.contains(RIGHT), "the passphrase is shown");
    }
    assert_eq!(waiting(&federation), json!([]));

    // Without a certificate of its own it cannot be served, and says what helps.
    fs::remove_file(federation.operator().join("server.pem")).expect("it is there");
    Finished::of("serve", &mut serve()).failed(4, &["certificate of its own", "ca sign"]);
    assert_eq!(waiting(&federation)[0]["kind"], "server");
    with(ca(&federation, "sign"), option, &right).done();
    let mut aggregator = federation.serve_all();
    aggregator.interrupt();
    aggregator.wait_for("stopping");
}
