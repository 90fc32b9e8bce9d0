//! The key of the certificate authority in a PKCS #11 token. The token is SoftHSM's; without it these tests
//! are skipped, unless `FEDLORA_SOFTHSM_TEST=required`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fedlora_aggregator::directory::Directory;
use fedlora_tests::{Federation, Finished, INSTITUTIONS, program};
use fedlora_transport::TlsKeyPair;
use fedlora_transport::pki::Revocation;
use time::{Duration, OffsetDateTime};

const TOKEN: &str = "fedlora-test";
const PIN: &str = "4321-8765";
/// In the environment of a process that a test starts of itself: the directory that it is to open.
const OPERATOR: &str = "FEDLORA_TEST_OPERATOR";

/// A token with its configuration, in a folder.
struct SoftHsm {
    folder: tempfile::TempDir,
    module: PathBuf,
}

impl SoftHsm {
    /// A new token; nothing where SoftHSM is not installed.
    fn new() -> Option<Self> {
        let modules = [
            "/usr/lib/softhsm/libsofthsm2.so",
            "/usr/lib64/softhsm/libsofthsm2.so",
            "/usr/lib64/pkcs11/libsofthsm2.so",
            "/usr/local/lib/softhsm/libsofthsm2.so",
        ];
        let module = modules.iter().map(PathBuf::from).find(|one| one.exists());
        let Some(module) = module else {
            let required = std::env::var_os("FEDLORA_SOFTHSM_TEST").is_some();
            assert!(!required, "SoftHSM is required, and not installed");
            eprintln!("skipped: SoftHSM is not installed (Debian's softhsm2)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tokens = folder.path().join("tokens");
        fs::create_dir(&tokens).expect("a folder can be made");
        let hsm = Self { folder, module };
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(hsm.configuration(), configuration).expect("a file can be written");
        let so = ["--so-pin", "11112222"];
        hsm.util(
            &[
                &["--init-token", "--free", "--label", TOKEN][..],
                &so,
                &["--pin", PIN],
            ]
            .concat(),
        );
        hsm.write_pin(PIN);
        Some(hsm)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    fn pin_file(&self) -> PathBuf {
        self.folder.path().join("pin")
    }

    fn write_pin(&self, pin: &str) {
        fs::write(self.pin_file(), format!("{pin}\n")).expect("a file can be written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(self.pin_file(), mode).expect("a mode can be set");
        }
    }

    fn util(&self, arguments: &[&str]) {
        let done = Command::new("softhsm2-util")
            .args(arguments)
            .env("SOFTHSM2_CONF", self.configuration())
            .stdout(Stdio::null())
            .status()
            .expect("softhsm2-util can be started");
        assert!(done.success(), "{arguments:?}");
    }

    /// Puts a key into the token, under an identifier of its own.
    fn import(&self, key: &Path, label: &str) {
        let id: String = label.bytes().map(|byte| format!("{byte:02x}")).collect();
        let key = key.to_str().expect("a plain path");
        let login = ["--token", TOKEN, "--pin", PIN];
        let object = ["--import", key, "--label", label, "--id", &id];
        self.util(&[&object[..], &login].concat());
    }

    /// The command, which finds the token.
    fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SOFTHSM2_CONF", self.configuration())
    }

    fn options(&self, command: &mut Command, label: &str) {
        self.with(command)
            .args(["--pkcs11-token", TOKEN, "--pkcs11-key", label])
            .arg("--pkcs11-module")
            .arg(&self.module)
            .arg("--pkcs11-pin-file")
            .arg(self.pin_file());
    }
}

#[test]
fn a_token_signs_for_the_authority_and_is_asked_for_nothing_else() {
    let Some(hsm) = SoftHsm::new() else { return };
    let key = hsm.folder.path().join("key.pem");
    let pem = TlsKeyPair::generate().expect("a key").to_pem();
    fs::write(&key, pem.as_bytes()).expect("a file can be written");

    let folder = hsm.folder.path().join("nowhere");
    let mut init = program("fedlora-aggregator");
    init.args([
        "init",
        "--name",
        "test",
        "--listen",
        "127.0.0.1:4433",
        "--dir",
    ]);
    hsm.options(init.arg(&folder), "ca");
    // The key is not there yet.
    Finished::of("init", &mut init).failed(4, &["label 'ca'", "pkcs11-tool"]);
    assert!(!folder.join("aggregator.toml").exists());
    hsm.import(&key, "ca");

    let federation = Federation::made_by(|_, init| hsm.options(init, "ca"));
    let operator = federation.operator();
    assert!(!operator.join("ca.key").exists());
    // Without the way to the token, what needs no key goes on.
    let token = federation.invite(INSTITUTIONS[0]);
    let mut show = program("fedlora-aggregator");
    show.args(["ca", "show", "--format", "json", "--dir"]);
    let shown = Finished::of("show", show.arg(&operator)).done().document();
    assert_eq!(shown["ca_key"], "token");
    Finished::of("serve", &mut federation.operate("serve")).failed(1, &["PKCS #11"]);

    // A wrong PIN is tried once.
    hsm.write_pin("00000000");
    let mut serve = federation.operate("serve");
    let refused = Finished::of("serve", hsm.with(&mut serve));
    let refused = refused.failed(4, &["does not take this PIN", "pin"]);
    assert!(!refused.stderr.contains("00000000"));
    hsm.write_pin(PIN);
    let mut serve = federation.operate("serve");
    let mut aggregator = fedlora_tests::Running::start("the aggregator", hsm.with(&mut serve));
    aggregator.wait_for("members can connect");
    Finished::of("join", &mut federation.joining(&token, INSTITUTIONS[0])).done();
    aggregator.interrupt();
    let ended = aggregator.finish();
    assert!(!ended.stderr.contains(PIN), "the PIN is shown");

    // Lists of revoked certificates too: in a process that finds the token.
    let itself = std::env::current_exe().expect("a test has a path");
    let done = hsm
        .with(&mut Command::new(itself))
        .args([
            "the_token_signs_a_list",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(OPERATOR, &operator)
        .output()
        .expect("the test can be started");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("the list is signed"), "{said}");
}

/// What the test above does in a process of its own, whose environment leads to the token.
#[test]
#[ignore = "the test above starts it, in an environment that leads to a token"]
fn the_token_signs_a_list() {
    let operator = std::env::var_os(OPERATOR).expect("the operator's directory");
    let (_, opened) = Directory::open(Path::new(&operator)).expect("the operator's directory");
    let now = OffsetDateTime::now_utc();
    let revocation = Revocation {
        serial: [0x41; 16],
        at: now - Duration::hours(1),
    };
    let signed = opened
        .authority
        .sign(|authority| authority.revocation_list(&[revocation], 1, now, 30));
    signed.expect("a list");
    println!("the list is signed");
}

/// A federation that has its key in a file gets it into a token, and its members stay.
#[test]
fn a_key_moves_into_a_token_and_the_authority_stays_the_same() {
    let Some(hsm) = SoftHsm::new() else { return };
    let federation = Federation::new();
    let operator = federation.operator();
    let key = operator.join("ca.key");
    let token = federation.invite(INSTITUTIONS[0]);
    hsm.import(&key, "moved");
    let path = operator.join("aggregator.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    let section = |label: &str| {
        format!(
            "{text}\n[ca.pkcs11]\nmodule = {:?}\ntoken = \"{TOKEN}\"\nkey = \"{label}\"\npin_file = {:?}\n",
            hsm.module,
            hsm.pin_file()
        )
    };
    fs::remove_file(&key).expect("the key can be removed");
    // Without the key and without a token nothing is served.
    Finished::of("serve", &mut federation.operate("serve")).failed(1, &["ca.key"]);
    // Another key in the token is not the authority's.
    let other = hsm.folder.path().join("other.pem");
    let pem = TlsKeyPair::generate().expect("a key").to_pem();
    fs::write(&other, pem.as_bytes()).expect("a file can be written");
    hsm.import(&other, "other");
    fs::write(&path, section("other")).expect("the configuration can be written");
    let mut serve = federation.operate("serve");
    Finished::of("serve", hsm.with(&mut serve)).failed(4, &["the certificate is for the key"]);

    fs::write(&path, section("moved")).expect("the configuration can be written");
    let mut serve = federation.operate("serve");
    let mut aggregator = fedlora_tests::Running::start("the aggregator", hsm.with(&mut serve));
    aggregator.wait_for("members can connect");
    Finished::of("join", &mut federation.joining(&token, INSTITUTIONS[0])).done();
}
