//! A year of a federation that is served and whose members' agents wait, in a minute: the day changes under
//! the running programs. Certificates are renewed, nothing ends unwarned, and members go and come back.

use std::fs;

use fedlora_tests::{FakedClock, Federation, Finished, INSTITUTIONS, Running, wait_for};
use serde_json::Value;

const MEMBERS: usize = 4;

fn plan(members: usize) -> String {
    format!(
        "rounds = 1\nmembers = {members}\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = 4, alpha = 8.0, targets = [\"q\"] }}\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         [personalisation]\nmethod = \"none\"\nshadow = false\n\
         [timeouts]\njoin = 100\nkeys = 60\nshares = 60\nupdate = 100\nconfirm = 60\n\
         reveal = 60\nreconnect = 20\n"
    )
}

/// Runs a plan of so many members to its end.
fn carry_out(federation: &Federation, members: usize, accept: &[&str]) {
    let run = federation.submit(&plan(members));
    for member in accept {
        accept_roster(federation, member);
    }
    let find = || federation.runs().into_iter().find(|one| one["run"] == run);
    let done = wait_for(
        "the end of a run",
        || format!("{:?}", find()),
        || find().filter(|one| !one["ended"].is_null()),
    );
    assert_eq!(done["state"], "finished", "{done}");
    assert_eq!(done["members"].as_array().map(Vec::len), Some(members));
    for place in done["members"].as_array().expect("a list") {
        let name = place.as_str().expect("a name");
        let over = federation.home(name).join("runs").join(&run).join("over");
        wait_for(
            "a member's end",
            || name.to_owned(),
            || over.exists().then_some(()),
        );
    }
}

fn accept_roster(federation: &Federation, member: &str) {
    let pending = federation.home(member).join("roster.pending.json");
    wait_for(
        "a roster to accept",
        || member.to_owned(),
        || pending.exists().then_some(()),
    );
    let shown = said(federation, member, &["roster", "--format", "json"]).document();
    let digest = shown["digest"].as_str().expect("a digest").to_owned();
    said(federation, member, &["roster", "--accept", &digest]);
}

fn said(federation: &Federation, member: &str, command: &[&str]) -> Finished {
    Finished::of(command[0], &mut federation.member(member, command)).done()
}

/// The last day of a member's certificate, in milliseconds.
fn certificate_end(federation: &Federation, member: &str) -> u64 {
    let status = said(federation, member, &["status", "--format", "json"]);
    let status: Value = status.document();
    status["certificate_end"].as_u64().expect("a time")
}

fn certificate(federation: &Federation, member: &str) -> Vec<u8> {
    fs::read(federation.home(member).join("tls.pem")).expect("a certificate")
}

fn stop(program: Running) {
    program.interrupt();
    program.finish().done();
}

#[test]
fn a_year_passes_and_nobody_is_locked_out_unwarned() {
    let Some(clock) = FakedClock::install() else {
        eprintln!("libfaketime is not installed: skipped");
        return;
    };
    let federation = Federation::new();
    let mut aggregator = federation.serve_all();
    let members = &INSTITUTIONS[..MEMBERS];
    for member in members {
        federation.join(member);
        federation.set_rules(member, "plans = \"accept\"");
    }
    let mut agents: Vec<_> = (members.iter())
        .map(|member| federation.start_agent(member))
        .collect();
    carry_out(&federation, MEMBERS, members);
    let [first, second, removed, absent] = [0, 1, 2, 3].map(|place| members[place]);
    stop(agents.pop().expect("the last one's"));

    // The server's first certificate ends on day 30. It shows another one on day 20, without a restart.
    clock.set(20);
    aggregator.wait_for("the server shows a new certificate");
    clock.set(40);
    stop(agents.remove(1));
    agents.insert(1, federation.start_agent(second));
    carry_out(&federation, 3, &[]);

    // In the second half of their year members get other certificates, though no run begins and no
    // connection breaks.
    let before = members.iter().map(|one| certificate(&federation, one));
    let before: Vec<_> = before.collect();
    let end = certificate_end(&federation, first);
    clock.set(190);
    for (place, member) in members.iter().enumerate().take(3) {
        let renewed = || certificate(&federation, member) != before[place];
        let log = || aggregator.stderr();
        wait_for("a renewed certificate", log, || renewed().then_some(()));
    }
    assert!(certificate_end(&federation, first) > end);
    assert_eq!(certificate(&federation, absent), before[3], "it was away");

    // Who is away is warned two months before the end, and comes back without anybody's consent.
    clock.set(330);
    let status = said(&federation, absent, &["status"]);
    let warning = "this member's certificate ends on";
    assert!(status.stderr.contains(warning), "{}", status.stderr);
    agents.push(federation.start_agent(absent));
    carry_out(&federation, MEMBERS, &[]);
    assert_ne!(certificate(&federation, absent), before[3]);
    let status = said(&federation, absent, &["status"]);
    assert_eq!(status.stderr, "");

    // After more than a year all three that stayed are still members; one that is removed is not.
    clock.set(420);
    let remove = Finished::of("remove", federation.operate("remove").arg(removed));
    remove.done();
    let gone = agents.remove(2).finish();
    assert_eq!(gone.code, Some(4), "{}", gone.stderr);
    let again = federation.start_agent(removed).finish();
    again.failed(4, &["not a member"]);
    carry_out(&federation, 3, &[]);

    // One that stays away until its certificate has ended cannot come back by itself, and is told how.
    stop(agents.pop().expect("the absent one's"));
    clock.set(330 + 366);
    stop(aggregator);
    aggregator = federation.serve_all();
    let status = said(&federation, absent, &["status"]);
    assert!(status.stderr.contains("ended on"), "{}", status.stderr);
    let refused = federation.start_agent(absent).finish();
    refused.failed(4, &["expired"]);
    assert_eq!(federation.runs().len(), 4);
    stop(aggregator);
}
