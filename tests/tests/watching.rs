//! What the operator and the members are told while a run waits, and when one is interrupted.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, wait_for};
use serde_json::{Value, json};

fn plan(members: usize, steps: u32) -> String {
    format!(
        "rounds = 1\nmembers = {members}\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = 4, alpha = 8.0, targets = [\"q\", \"v\"] }}\n\
         [training]\nsteps = {steps}\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [timeouts]\njoin = 100\nkeys = 60\nshares = 60\nupdate = 200\nconfirm = 60\n\
         reveal = 60\nreconnect = 3\n"
    )
}

/// What `status` prints for people.
fn page(federation: &Federation) -> String {
    Finished::of("status", &mut federation.operate("status"))
        .done()
        .stdout
}

fn member<'a>(status: &'a Value, name: &str) -> &'a Value {
    let members = status["members"].as_array().expect("members");
    let found = members.iter().find(|member| member["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {status}"))
}

#[test]
fn a_gathering_says_who_is_ready_awaited_and_whose_floor_is_in_the_way() {
    let [ready, strict, late] = [INSTITUTIONS[0], INSTITUTIONS[1], INSTITUTIONS[2]];
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan(4, 1));
    for name in [ready, strict, late] {
        federation.join(name);
    }
    let mut running = federation.start(ready);
    running.wait_for("waiting for the other members: the plan asks for 4");

    let path = federation.home(strict).join("fedlora.toml");
    let text = fs::read_to_string(&path).expect("a member's configuration");
    let stricter = text.replace("[floors]", "[floors]\nrank = 2");
    let stricter = match text.lines().any(|line| line.starts_with("rank = ")) {
        true => text
            .lines()
            .map(|line| match line.starts_with("rank = ") {
                true => "rank = 2\n".to_owned(),
                false => format!("{line}\n"),
            })
            .collect(),
        false => stricter,
    };
    fs::write(&path, stricter).expect("the configuration can be written");
    let refused = federation.start(strict).finish();
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);

    aggregator.wait_for("the member does not take part");
    let status = wait_for(
        "status with the refusal",
        || federation.status().to_string(),
        || {
            let status = federation.status();
            let known = member(&status, strict)["problem"].is_string();
            (known && status["stage"]["ready"] == json!([ready])).then_some(status)
        },
    );
    let stage = &status["stage"];
    assert_eq!(
        (&stage["name"], &stage["needed"]),
        (&json!("gathering"), &json!(4))
    );
    assert_eq!(stage["awaited"], json!([strict, late]));
    assert!(stage["until"].as_u64() > stage["since"].as_u64(), "{stage}");
    let problem = member(&status, strict)["problem"].as_str().expect("a text");
    assert!(
        problem.contains("rank") && problem.len() <= 200,
        "{problem}"
    );
    let there = member(&status, ready);
    assert_eq!(
        (&there["connected"], &there["ready"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(there["release"], env!("CARGO_PKG_VERSION"));
    assert!(
        there["last_seen"].is_u64() && there["certificate_end"].is_u64(),
        "{there}"
    );
    let told = page(&federation);
    for words in [
        &format!("1 of 4 ready ({ready}); awaited: {strict}, {late}; 1 more must join"),
        problem,
        "certificate until",
    ] {
        assert!(told.contains(words), "{told}");
    }
    // The log says the same without being asked.
    aggregator.wait_for(&format!(
        "1 of 4 ready ({ready}); awaited: {strict}, {late}"
    ));

    let watching = Running::start("watch", &mut federation.operate("watch"));
    wait_for(
        "line of watch",
        || watching.stdout(),
        || watching.stdout().contains("; awaited: ").then_some(()),
    );
    watching.interrupt();
    assert_eq!(watching.finish().code, Some(130));

    // Nothing serves it any more, and the status says since when.
    aggregator.kill();
    let told = page(&federation);
    assert!(told.contains("stopped: nothing serves it since "), "{told}");
    assert!(!told.contains(" connected "), "{told}");
    assert_eq!(federation.status()["state"], "stopped");
}

/// What a page of the aggregator's monitoring says: the status line, and the whole answer.
fn page_of(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("monitoring is answered");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("a request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let line = answer.lines().next().unwrap_or_default().to_owned();
    (line, answer)
}

#[test]
fn a_run_is_monitored_and_watched_to_its_end() {
    let members = &INSTITUTIONS[..3];
    let federation = Federation::new();
    let mut serving = federation.serving(&plan(3, 1));
    let mut aggregator = Running::start("the aggregator", serving.args(["--metrics", "0"]));
    aggregator.wait_for("waiting for members");
    let log = aggregator.stderr();
    let told = log
        .lines()
        .find_map(|line| line.split_once("monitoring is answered address="));
    let address = told.expect("the log has the address").1.trim().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(page_of(&address, "/healthz").0.contains("200"));
    assert!(page_of(&address, "/readyz").0.contains("200"));

    let mut json = federation.operate("watch");
    let json = Running::start("watch", json.args(["--format", "json"]));
    let text = Running::start("watch", &mut federation.operate("watch"));
    for name in members {
        federation.join(name);
    }
    let first = federation.start(members[0]);
    let ready = "fedlora_members{is=\"ready\"} 1.0";
    let page = wait_for(
        "ready member",
        || aggregator.stderr(),
        || {
            let (_, page) = page_of(&address, "/metrics");
            page.contains(ready).then_some(page)
        },
    );
    for line in [
        "content-type: text/plain; version=0.0.4",
        "fedlora_members{is=\"needed\"} 3.0",
        "fedlora_members{is=\"awaited\"} 2.0",
        "fedlora_stage{stage=\"gathering\"} 1.0",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    let mut running = vec![first];
    running.extend(members[1..].iter().map(|name| federation.start(name)));
    for member in running {
        member.finish().done();
    }
    aggregator.finish().done();
    let status = federation.status();
    assert!(status["bytes_received"].as_u64() > Some(0), "{status}");
    assert!(status["stage_seconds"]["updates"].is_f64(), "{status}");
    assert!(status["last_result"].is_u64(), "{status}");
    assert_eq!(status["stage"], Value::Null);

    let watched = json.finish().done();
    let documents: Vec<Value> = watched
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a document a line"))
        .collect();
    assert!(documents.len() > 2, "{}", watched.stdout);
    assert_eq!(documents[0]["state"], "gathering");
    assert_eq!(documents[documents.len() - 1]["state"], "finished");
    let watched = text.finish().done().stdout;
    assert!(
        watched.starts_with("waiting for members, for "),
        "{watched}"
    );
    assert!(
        watched
            .trim_end()
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("finished")),
        "{watched}"
    );
    assert!(!watched.contains('\u{1b}'), "{watched}");
}

#[test]
fn a_member_that_is_interrupted_after_its_upload_is_told_that_it_counts() {
    let federation = Federation::new();
    let mut aggregator = federation.serve(&plan(5, 1));
    for name in INSTITUTIONS {
        federation.join(name);
    }
    let mut running: Vec<_> = INSTITUTIONS
        .iter()
        .map(|name| federation.start(name))
        .collect();
    let mut victim = running.pop().expect("five members");
    aggregator.wait_for("phase=updates");
    // The phase stays open without this one, whose own update may be there already.
    running[0].freeze();
    victim.wait_for("waiting for the other members' part of round 1");
    victim.interrupt();
    let victim = victim.finish();
    assert_eq!(victim.code, Some(130), "{}", victim.stderr);
    assert!(
        victim.stderr.contains("your update of round 1 counts"),
        "{}",
        victim.stderr
    );
    assert!(!victim.stderr.contains("out of"), "{}", victim.stderr);
    running[0].thaw();
    for member in running {
        member.finish().done();
    }
    let served = aggregator.finish().done();
    assert_eq!(federation.results()[0]["survivors"], json!([0, 1, 2, 3, 4]));
    for line in served
        .stderr
        .lines()
        .filter(|line| line.contains(INSTITUTIONS[4]))
    {
        assert!(!line.contains("continues without it"), "{line}");
        assert!(!line.contains("WARN"), "{line}");
    }
    // People read names.
    assert!(!served.stderr.contains('#'), "{}", served.stderr);
}
