//! What the programs ask for on a terminal: nothing of a secret is shown, neither as it is typed nor in
//! what is said of it.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Command;

use fedlora_tests::{AtTerminal, Federation, Finished, program};

const PASSPHRASE: &str = "correct horse battery";
const TYPED_WRONG: &str = "staple horse battery";

/// The end of a command that ctrl-c ends.
const INTERRUPTED: i32 = 130;
/// What a terminal sends for that key.
const CTRL_C: &str = "\u{3}";

/// Parts of a secret that are long enough to be found by chance nowhere else.
fn assert_hidden(secret: &str, finished: &Finished) {
    let letters: Vec<_> = secret.chars().collect();
    for part in letters.chunks(12).filter(|part| part.len() == 12) {
        let part: String = part.iter().collect();
        assert!(!finished.stderr.contains(&part), "{}", finished.stderr);
    }
}

/// `fedlora join` at a terminal, into this member's directory, with no invitation on the command line.
fn joining(federation: &Federation, member: &str) -> AtTerminal {
    let mut command = program("fedlora");
    command
        .arg("join")
        .arg("--dir")
        .arg(federation.home(member));
    AtTerminal::start("join", &command)
}

#[test]
fn an_invitation_is_asked_for_and_not_shown() {
    let federation = Federation::new();
    let _aggregator = federation.serve_all();
    let token = federation.invite("hospital-a");
    // As it comes out of a mail: quoted, with blanks around it and in it.
    let (head, tail) = token.split_at(40);
    let mut join = joining(&federation, "hospital-a");
    join.answer("Invitation: ", 1, &format!("  \"{head} {tail}\" \n"));
    let joined = join.finish().done();
    assert!(joined.stderr.contains("hospital-a"), "{}", joined.stderr);
    assert_hidden(&token, &joined);
    assert!(federation.home("hospital-a").join("tls.pem").exists());

    // One that was cut is told as such, and not repeated.
    let token = federation.invite("hospital-b");
    let (cut, _) = token.split_at(token.len() - 5);
    let mut join = joining(&federation, "hospital-b");
    join.answer("Invitation: ", 1, &format!("{cut}\n"));
    let refused = join.finish();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("the invitation token is damaged"));
    assert_hidden(&token, &refused);
    // Ctrl-c ends it, and `-` asks as well where somebody sits at a terminal.
    let mut command = program("fedlora");
    command.args(["join", "-", "--dir"]);
    command.arg(federation.home("hospital-b"));
    let mut join = AtTerminal::start("join", &command);
    join.answer("Invitation: ", 1, CTRL_C);
    let ended = join.finish();
    assert_eq!(ended.code, Some(INTERRUPTED), "{}", ended.stderr);
    assert!(!federation.home("hospital-b").exists());
    // Nobody is there to be asked.
    let mut command = program("fedlora");
    command.arg("join").arg("--dir");
    command.arg(federation.home("hospital-b"));
    let refused = Finished::of("join", &mut command);
    refused.failed(2, &["no terminal", "--token-file", "standard input"]);
}

#[test]
fn a_passphrase_is_asked_for_twice_to_seal_and_once_to_open_and_not_shown() {
    let federation = Federation::new();
    let key = federation.operator().join("ca.key");
    let is_sealed = || {
        let text = fs::read_to_string(&key).expect("the key is there");
        text.contains("ENCRYPTED")
    };
    let ca = |command: &str| {
        let mut operate: Command = program("fedlora-aggregator");
        operate.args(["ca", command, "--dir"]);
        operate.arg(federation.operator());
        AtTerminal::start(command, &operate)
    };
    let (chosen, again) = (
        "New passphrase of the authority's key: ",
        "The same again: ",
    );
    let asked = "Passphrase of the authority's key: ";
    let ended = |at: AtTerminal, code: i32, words: &str| {
        let finished = at.finish();
        assert_eq!(finished.code, Some(code), "{}", finished.stderr);
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
        assert_hidden(PASSPHRASE, &finished);
        assert_hidden(TYPED_WRONG, &finished);
    };

    let mut seal = ca("seal");
    seal.answer(chosen, 1, &format!("{PASSPHRASE}\n"));
    seal.answer(again, 1, &format!("{TYPED_WRONG}\n"));
    ended(seal, 2, "the two passphrases differ");
    let mut seal = ca("seal");
    seal.answer(chosen, 1, CTRL_C);
    ended(seal, INTERRUPTED, "");
    assert!(!is_sealed());
    let mut seal = ca("seal");
    seal.answer(chosen, 1, &format!("{PASSPHRASE}\n"));
    seal.answer(again, 1, &format!("{PASSPHRASE}\n"));
    ended(seal, 0, "sealed");
    assert!(is_sealed());

    let mut unseal = ca("unseal");
    unseal.answer(asked, 1, &format!("{TYPED_WRONG}\n"));
    ended(unseal, 4, "does not open");
    assert!(is_sealed());
    let mut unseal = ca("unseal");
    unseal.answer(asked, 1, &format!("{PASSPHRASE}\n"));
    ended(unseal, 0, "in the clear");
    assert!(!is_sealed());
}

/// The commands of docs/OPERATIONS.md by which two operators decide: what is approved is shown in full
/// before the passphrase is asked for, since to give it is to agree.
#[test]
fn two_operators_type_their_passphrases_which_are_not_shown() {
    let federation = Federation::new();
    let chosen = "New passphrase of your operator's key: ";
    let operators = ["alice", "bob"].map(|name| {
        let key = federation.folder().join(format!("{name}.key"));
        let mut command = program("fedlora-aggregator");
        command.args(["operator", "keygen", "--format", "json"]);
        let mut keygen = AtTerminal::start("keygen", command.arg(&key));
        keygen.answer(chosen, 1, &format!("{PASSPHRASE}\n"));
        keygen.answer("The same again: ", 1, &format!("{PASSPHRASE}\n"));
        let made = keygen.finish().done();
        assert_hidden(PASSPHRASE, &made);
        let text = fs::read_to_string(&key).expect("the key was made");
        assert!(text.contains("ENCRYPTED"), "it is sealed");
        (key, format!("{name}={}", value(&made.stderr, "key")))
    });
    let mut require = program("fedlora-aggregator");
    require.args(["operator", "require"]);
    require.args(operators.iter().map(|(_, named)| named));
    require.arg("--dir").arg(federation.operator());
    Finished::of("require", &mut require).done();

    let asked = "Passphrase of your operator's key: ";
    let [(alice, _), (bob, _)] = &operators;
    let mut propose = federation.operate("invite");
    propose.args(["hospital-a", "--format", "json", "--operator-key"]);
    let mut propose = AtTerminal::start("invite", propose.arg(alice));
    propose.answer(asked, 1, &format!("{PASSPHRASE}\n"));
    let proposed = propose.finish().done();
    assert_hidden(PASSPHRASE, &proposed);
    let id = value(&proposed.stderr, "proposal");

    let approve = |passphrase: &str| {
        let mut approve = program("fedlora-aggregator");
        approve.args(["operator", "approve", &id, "--dir"]);
        approve.arg(federation.operator());
        approve.arg("--operator-key").arg(bob);
        let mut approve = AtTerminal::start("approve", &approve);
        approve.answer(asked, 1, &format!("{passphrase}\n"));
        let approved = approve.finish();
        let (before, _) = approved.stderr.split_once(asked).expect("it was asked for");
        assert!(before.contains("hospital-a"), "{}", approved.stderr);
        assert_hidden(PASSPHRASE, &approved);
        assert_hidden(TYPED_WRONG, &approved);
        approved
    };
    let refused = approve(TYPED_WRONG);
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(!refused.stderr.contains("fedlora1."));
    let approved = approve(PASSPHRASE).done();
    assert!(approved.stderr.contains("fedlora1."), "the invitation");
}

/// A field of the JSON document in what a terminal shows.
fn value(shown: &str, field: &str) -> String {
    let (_, rest) = shown
        .split_once(&format!("\"{field}\":\""))
        .unwrap_or_else(|| panic!("no {field}:\n{shown}"));
    rest.split('"').next().unwrap_or_default().to_owned()
}
