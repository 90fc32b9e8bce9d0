//! What people read of a status.

use super::*;

fn name(text: &str) -> MemberName {
    text.parse().unwrap()
}

fn status() -> Status {
    let text = r#"{
        "schema_version": 1, "federation": "test", "run": "01", "state": "gathering",
        "failure": null, "rounds_planned": 2, "rounds_done": 0, "phase": null,
        "members": [
            {"name": "a", "connected": true, "rounds": 0, "release": "0.1.0",
             "last_seen": 1000000, "certificate_end": 86400000},
            {"name": "b", "connected": false, "rounds": 0, "problem": "its floors.rank is 8"}
        ],
        "adapter": null, "updated": 1000000, "pid": 1
    }"#;
    serde_json::from_str(text).expect("an older status is read")
}

fn stage(name_of: &str) -> StageStatus {
    StageStatus {
        name: name_of.to_owned(),
        since: Timestamp(990_000),
        until: Timestamp(1_100_000),
        needed: 3,
        ready: vec![name("a")],
        awaited: vec![name("b")],
    }
}

#[test]
fn a_line_says_who_is_awaited_until_when_and_whose_floor_is_in_the_way() {
    let mut status = status();
    status.stage = Some(stage("gathering"));
    status.bytes_received = 12_345;
    assert_eq!(
        status.summary(Timestamp(1_000_000)),
        "waiting for members, for 10 s: 1 of 3 ready (a); awaited: b; 1 more must join; 100 s \
         left; 12.3 kB received; b: its floors.rank is 8"
    );
    status.state = RunState::Running;
    status.phase = Some("keys".to_owned());
    status.attempt = Some(2);
    status.stage = Some(stage("keys"));
    let line = status.summary(Timestamp(1_000_000));
    let begins = "round 1, attempt 2, keys, for 10 s: 1 of 3 answered (a); awaited: b; 100 s left";
    assert!(line.starts_with(begins), "{line}");
}

#[test]
fn a_page_says_since_when_nothing_serves_and_what_is_known_of_members() {
    let mut status = status().unserved();
    let page = status.page(Timestamp(1_060_000));
    for words in [
        "stopped: nothing serves it since 1970-01-01 00:16:40 UTC",
        "release 0.1.0, last seen 60 s ago, certificate until 1970-01-02",
        "away       in 0 rounds: its floors.rank is 8",
        "written      1970-01-01 00:16:40 UTC",
    ] {
        assert!(page.contains(words), "{page}");
    }
    assert!(!page.contains(" connected "), "{page}");
    status.phase = Some("updates".to_owned());
    let page = status.page(Timestamp(1_060_000));
    assert!(
        page.contains("stopped in round 1, updates: nothing serves it since"),
        "{page}"
    );
}

#[test]
fn of_many_names_the_first_are_listed() {
    let members: Vec<_> = (0..10).map(|number| name(&format!("m{number}"))).collect();
    assert_eq!(
        names(&members),
        "m0, m1, m2, m3, m4, m5, m6, m7 and 2 others"
    );
    assert_eq!(span(Duration::from_secs(599)), "599 s");
    assert_eq!(span(Duration::from_secs(600)), "10 min");
    assert_eq!(bytes(12_000_000), "12.0 MB");
}
