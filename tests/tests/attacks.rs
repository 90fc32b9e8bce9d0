//! `fedlora-sim attack`: the document, the table, the exit code, and names that are none. What each
//! attack comes to is tested with the attacks, in `examples/src/attacks/tests.rs`.

use fedlora_tests::{Finished, program};

fn attack(arguments: &[&str]) -> Finished {
    let mut command = program("fedlora-sim");
    Finished::of("fedlora-sim", command.arg("attack").args(arguments))
}

#[test]
fn the_document_says_what_was_tried_and_what_came_of_it() {
    let document = attack(&["second-run", "--format", "json"])
        .done()
        .document();
    assert_eq!(document["schema_version"], 1);
    let attacks = document["attacks"].as_array().expect("attacks");
    assert_eq!(attacks.len(), 1);
    assert_eq!(attacks[0]["name"], "second-run");
    assert_eq!(attacks[0]["by"], "aggregator");
    assert_eq!(attacks[0]["held"], true);
    let text = |key: &str| attacks[0][key].as_str().expect("text").to_owned();
    assert!(text("tried").contains("another run"), "{document}");
    assert!(text("answer").contains("differencing attack"), "{document}");
}

#[test]
fn a_name_that_is_none_is_refused_with_the_names() {
    attack(&["no-such-attack"]).failed(2, &["second-run", "all"]);
}

#[test]
fn attacks_that_are_held_end_the_program_well() {
    let done = attack(&["garbage-seal"]).done();
    assert!(done.stdout.contains("held against 1 of 1 attacks"));
}

#[test]
fn the_help_lists_every_attack_with_a_line() {
    let help = attack(&["--help"]).done().stdout;
    for line in [
        "- skipped-round:",
        "- restored-ledger:",
        "- garbage-seal:",
        "- all:",
    ] {
        let found = help.lines().find_map(|text| text.trim().strip_prefix(line));
        let about = found.unwrap_or_else(|| panic!("no {line} in {help}"));
        assert!(about.trim().len() > 10, "{line} has no line: {help}");
    }
    assert!(
        help.contains("Example:\n  fedlora-sim attack all"),
        "{help}"
    );
}
