//! Invitations that wait for weeks: they stand on the disk, not in a process. The day changes under the
//! running programs.

use fedlora_tests::{FakedClock, Federation, Finished};

fn invite(federation: &Federation, member: &str, hours: u32) -> String {
    let mut command = federation.operate("invite");
    command.args([member, "--hours", &hours.to_string()]);
    let done = Finished::of("invite", &mut command).done();
    done.stdout.trim().to_owned()
}

fn join(federation: &Federation, token: &str, home: &str) -> Finished {
    Finished::of("join", &mut federation.joining(token, home))
}

#[test]
fn an_invitation_outlives_every_serve_until_its_own_end() {
    let Some(clock) = FakedClock::install() else {
        eprintln!("libfaketime is not installed: skipped");
        return;
    };
    let federation = Federation::new();
    // Made while nobody serves, and while somebody does.
    let long = invite(&federation, "hospital-a", 45 * 24);
    let aggregator = federation.serve_all();
    let other = invite(&federation, "hospital-b", 45 * 24);
    let short = federation.invite("hospital-c");
    aggregator.interrupt();
    aggregator.finish().done();

    // The service was stopped and started again, and its first certificate has ended.
    clock.set(40);
    let aggregator = federation.serve_all();
    join(&federation, &long, "hospital-a").done();
    // 72 hours were over long ago. The member is told by its own program, before anything is made.
    let words = ["the invitation has expired", "clock", "ask the operator"];
    join(&federation, &short, "hospital-c").failed(4, &words);
    assert!(!federation.home("hospital-c").exists());
    aggregator.interrupt();
    aggregator.finish().done();

    // What was used serves the same keys again, and nobody else; also after another start.
    let _aggregator = federation.serve_all();
    let stolen = join(&federation, &long, "somebody-else");
    stolen.failed(4, &["used by somebody else's keys"]);
    clock.set(46);
    join(&federation, &other, "hospital-b").failed(4, &words);
    // A new one of the same name does, in the same folder.
    let again = federation.invite("hospital-b");
    join(&federation, &again, "hospital-b").done();
    let again = federation.invite("hospital-c");
    join(&federation, &again, "hospital-c").done();
    let roster = federation.roster();
    let members = roster["members"].as_array().expect("a list");
    assert_eq!(members.len(), 3);
}
