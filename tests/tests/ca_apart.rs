//! The authority's key in a folder of its own, as on another machine: what the commands refuse, and that
//! members and the aggregator get what was signed there while it serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fedlora_tests::{Federation, Finished, program};
use serde_json::{Value, json};

const PASSPHRASE: &str = "correct horse battery";

/// A federation whose authority's key is in the folder `authority`.
struct Apart {
    federation: Federation,
    passphrase: PathBuf,
}

impl Apart {
    fn new() -> Self {
        let federation = Federation::sealed(PASSPHRASE);
        let passphrase = federation.folder().join("passphrase");
        let apart = Self {
            federation,
            passphrase,
        };
        apart.detach().done();
        apart
    }

    fn authority(&self) -> PathBuf {
        self.federation.folder().join("authority")
    }

    fn detach(&self) -> Finished {
        let mut command = ca("detach", &self.federation.operator());
        command.arg("--to").arg(self.authority());
        command.arg("--passphrase-file").arg(&self.passphrase);
        Finished::of("detach", &mut command)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.federation.folder().join(name)
    }

    fn export(&self) -> Value {
        let mut command = ca("export", &self.federation.operator());
        let done = Finished::of("export", command.arg(self.file("requests.json")));
        done.done().document()["requests"].take()
    }

    fn sign(&self, more: &[&str]) -> Finished {
        let mut command = ca("sign", &self.authority());
        command.arg(self.file("requests.json"));
        command.arg("--out").arg(self.file("certificates.json"));
        command.arg("--passphrase-file").arg(&self.passphrase);
        Finished::of("sign", command.args(more))
    }

    fn import(&self) -> Finished {
        let mut command = ca("import", &self.federation.operator());
        Finished::of("import", command.arg(self.file("certificates.json")))
    }

    fn join(&self, token: &str, home: &str) -> Finished {
        Finished::of("join", &mut self.federation.joining(token, home))
    }
}

fn ca(command: &str, dir: &Path) -> Command {
    let mut operate = program("fedlora-aggregator");
    operate.args(["ca", command, "--format", "json", "--dir"]);
    operate.arg(dir);
    operate
}

#[test]
fn somebody_joins_and_gets_other_keys_although_the_key_is_elsewhere() {
    let apart = Apart::new();
    let federation = &apart.federation;
    let mut aggregator = federation.serve_all();
    assert!(
        aggregator
            .stderr()
            .contains("the authority's key is kept apart")
    );
    // Nobody takes the key from under a process that serves.
    apart.detach().failed(1, &["another process serves"]);
    let token = federation.invite("hospital-a");
    apart
        .join(&token, "first")
        .failed(4, &["waits for the operator"]);
    aggregator.wait_for("a certificate waits for the authority's key");
    let told = Finished::of("status", &mut federation.operate("status")).done();
    assert!(told.stderr.contains("ca export"), "{}", told.stderr);
    // Here nothing can be signed; there only what is named.
    let mut here = ca("sign", &federation.operator());
    Finished::of("sign", &mut here).failed(4, &["kept apart", "ca export", "ca import"]);
    let mut there = ca("sign", &apart.authority());
    Finished::of("sign", &mut there).failed(2, &["apart", "ca export"]);

    assert_eq!(apart.export()[0]["member"], "hospital-a");
    let signed = apart.sign(&[]).done().document();
    assert_eq!(signed["certificates"][0]["member"], "hospital-a");
    apart
        .join(&token, "first")
        .failed(4, &["waits for the operator"]);
    apart.import().done();
    apart.join(&token, "first").done();

    // Other keys for the member: the authority's folder knows the former ones.
    let command = |name: &str| {
        let mut command = federation.operate(name);
        let done = Finished::of(name, command.args(["hospital-a", "--format", "json"]));
        done.done().document()
    };
    let token = command("re-key")["token"].take();
    let token = token.as_str().expect("a token");
    apart
        .join(token, "second")
        .failed(4, &["waits for the operator"]);
    apart.export();
    let refused = ["another key", "hospital-a", "--re-key"];
    apart.sign(&[]).failed(4, &refused);
    apart.sign(&["--re-key", "hospital-a"]).done();
    apart.import().done();
    apart.join(token, "second").done();
    let members = federation.roster()["members"].take();
    assert_eq!(members.as_array().map(Vec::len), Some(1));
    // Removing somebody needs no key, and what it has asked for is not exported any more.
    let unwanted = federation.invite("hospital-b");
    apart
        .join(&unwanted, "third")
        .failed(4, &["waits for the operator"]);
    let mut remove = federation.operate("remove");
    Finished::of("remove", remove.arg("hospital-b")).done();
    assert_eq!(apart.export(), json!([]));
    apart.sign(&[]).failed(4, &["nothing is left to sign"]);
}

/// A removal works at once at the aggregator, without the key; and the key learns of it by the next file.
#[test]
fn somebody_is_removed_although_the_key_is_elsewhere() {
    let apart = Apart::new();
    let federation = &apart.federation;
    let _aggregator = federation.serve_all();
    let token = federation.invite("hospital-a");
    apart
        .join(&token, "first")
        .failed(4, &["waits for the operator"]);
    apart.export();
    apart.sign(&[]).done();
    apart.import().done();
    apart.join(&token, "first").done();
    Finished::of("remove", federation.operate("remove").arg("hospital-a")).done();
    let fetch = || Finished::of("fetch", &mut federation.member("first", &["fetch"]));
    fetch().failed(4, &["not a member"]);

    // Nothing waits, and the authority is told all the same: that takes no passphrase.
    assert_eq!(apart.export(), json!([]));
    fs::write(&apart.passphrase, "another one, and wrong").expect("a file");
    let told = apart.sign(&[]).done().document();
    assert_eq!(told["revoked"][0]["member"], "hospital-a");
    assert_eq!(told["certificates"], json!([]));
    apart.export();
    apart.sign(&[]).failed(4, &["nothing is left to sign"]);

    let revoke = |name: &str| Finished::of("revoke", ca("revoke", &apart.authority()).arg(name));
    assert_eq!(revoke("hospital-a").done().document()["revoked"], json!([]));
    revoke("hospital-b").failed(4, &["no certificate for hospital-b"]);
    let mut here = ca("revoke", &federation.operator());
    Finished::of("revoke", here.arg("hospital-a")).failed(3, &["no authority's key"]);
}

#[test]
fn a_file_that_was_changed_on_the_way_is_refused_on_both_sides() {
    let apart = Apart::new();
    let _aggregator = apart.federation.serve_all();
    let token = apart.federation.invite("hospital-a");
    apart
        .join(&token, "first")
        .failed(4, &["waits for the operator"]);
    apart.export();
    let requests = apart.file("requests.json");
    let text = fs::read_to_string(&requests).expect("the requests");
    fs::write(&requests, text.replace("hospital-a", "hospital-b")).expect("a file");
    apart
        .sign(&[])
        .failed(9, &["requests.json", "signature is wrong"]);
    fs::write(&requests, text).expect("a file");
    apart.sign(&[]).done();
    let certificates = apart.file("certificates.json");
    let text = fs::read_to_string(&certificates).expect("the certificates");
    // Of a request that does not wait: it is not taken.
    fs::write(&certificates, text.replace("hospital-a", "hospital-b")).expect("a file");
    let taken = apart.import().done().document();
    assert_eq!(taken["certificates"], json!([]));
    fs::write(&certificates, "no certificates").expect("a file");
    apart
        .import()
        .failed(9, &["certificates.json", "not a file of certificates"]);
    fs::write(&certificates, text).expect("a file");
    apart.import().done();
    apart.join(&token, "first").done();
}
