//! The command line as a whole.

use fedlora_shell::{reference, without_example};

use super::Cli;

#[test]
fn each_command_has_an_example() {
    let command = fedlora_shell::command::<Cli>();
    command.clone().debug_assert();
    assert_eq!(without_example(&command), Vec::<String>::new());
}

#[test]
fn the_reference_names_each_command_and_no_old_flag() {
    let text = reference(fedlora_shell::command::<Cli>());
    for part in [
        "## fedlora join",
        "## fedlora run",
        "`--eval-data <FILE>`",
        "| 130 |",
    ] {
        assert!(text.contains(part), "{part}");
    }
    for old in ["--held-out", "fedlora man"] {
        assert!(!text.contains(old), "{old}");
    }
}

#[test]
fn the_flags_that_run_had_before_still_work() {
    let old = [
        "fedlora",
        "run",
        "--dir",
        "d",
        "--base",
        "b",
        "--data",
        "f",
        "--held-out",
        "h",
        "--patience",
        "7",
    ];
    fedlora_shell::command::<Cli>()
        .try_get_matches_from(old)
        .expect("old names");
}
