//! The program starts. That this test exists has cargo build the program with the workspace's tests,
//! where the end-to-end tests find it.

use std::process::Command;

#[test]
fn the_program_says_its_name_and_version_and_refuses_an_unknown_command() {
    let program = env!("CARGO_BIN_EXE_fedlora");
    let told = Command::new(program).arg("--version").output();
    let told = told.expect("the program starts");
    let expected = concat!("fedlora ", env!("CARGO_PKG_VERSION"));
    assert!(told.status.success(), "{told:?}");
    assert!(
        String::from_utf8_lossy(&told.stdout).starts_with(expected),
        "{told:?}"
    );
    let refused = Command::new(program).arg("no-such-command").output();
    let refused = refused.expect("the program starts");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(
        refused.stdout.is_empty() && !refused.stderr.is_empty(),
        "{refused:?}"
    );
}
