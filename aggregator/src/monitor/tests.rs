//! What monitoring answers, and that the dashboard asks for nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use http_body_util::BodyExt;

use super::*;

const PID: u32 = 7;

fn status(state: &str) -> Status {
    let text = format!(
        r#"{{
        "schema_version": 1, "federation": "test", "run": "0a", "state": "{state}",
        "failure": null, "rounds_planned": 5, "rounds_done": 2, "phase": "updates", "attempt": 1,
        "stage": {{"name": "updates", "since": 1000000, "until": 1100000, "needed": 3,
                  "ready": ["a"], "awaited": ["b", "c"]}},
        "stage_seconds": {{"keys": 2.5}},
        "members": [
            {{"name": "a", "connected": true, "rounds": 2, "certificate_end": 2000000}},
            {{"name": "b", "connected": true, "rounds": 2}},
            {{"name": "c", "connected": false, "rounds": 1, "problem": "its floor"}}
        ],
        "adapter": null, "updated": 1010000, "pid": {PID}, "bytes_received": 123456,
        "bytes_sent": 7, "attempts_failed": 1, "messages_refused": 2, "pooled_loss": 1.25,
        "last_result": 990000, "certificate_end": 3000000
        }}"#
    );
    serde_json::from_str(&text).expect("a status")
}

fn ask(path: &str, status: Option<Status>) -> (StatusCode, String) {
    let response = answer(&Method::GET, path, Ok(status), PID);
    let code = response.status();
    let body = response.into_body().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let body = runtime.expect("a runtime").block_on(body);
    let bytes = body.expect("a whole body").to_bytes();
    (code, String::from_utf8(bytes.to_vec()).expect("text"))
}

#[test]
fn metrics_have_help_type_and_units_and_tell_of_the_run() {
    let (code, page) = ask("/metrics", Some(status("running")));
    assert_eq!(code, StatusCode::OK);
    for line in [
        "fedlora_run_info{run=\"0a\",federation=\"test\"} 1.0",
        "fedlora_run_state{state=\"running\"} 1.0",
        "fedlora_run_state{state=\"failed\"} 0.0",
        "fedlora_stage{stage=\"updates\"} 1.0",
        "fedlora_stage_duration_seconds{stage=\"keys\"} 2.5",
        "fedlora_stage_elapsed_seconds 10.0",
        "fedlora_round 3.0",
        "fedlora_rounds_done 2.0",
        "fedlora_attempts_failed_total 1.0",
        "fedlora_members{is=\"connected\"} 2.0",
        "fedlora_members{is=\"awaited\"} 2.0",
        "fedlora_members{is=\"hindered\"} 1.0",
        "fedlora_received_bytes_total 123456.0",
        "fedlora_messages_refused_total 2.0",
        "fedlora_member_certificate_expiry_timestamp_seconds{member=\"a\"} 2000.0",
        "fedlora_server_certificate_expiry_timestamp_seconds 3000.0",
        "fedlora_last_result_timestamp_seconds 990.0",
        "fedlora_pooled_validation_loss_nats 1.25",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    for name in names(&page) {
        for about in ["HELP", "TYPE"] {
            assert!(
                page.contains(&format!("# {about} {name} ")),
                "{about} {name}\n{page}"
            );
        }
    }
    // What is a member's own is not told, nor why one does not take part.
    assert!(!page.contains("its floor"), "{page}");
    let of_members: Vec<_> = page
        .lines()
        .filter(|line| line.contains("member="))
        .collect();
    assert_eq!(of_members.len(), 1, "{of_members:?}");
}

/// The names of the metrics on a page.
fn names(page: &str) -> BTreeSet<&str> {
    let values = page.lines().filter(|line| !line.starts_with('#'));
    values
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect()
}

#[test]
fn it_is_ready_while_this_process_serves_a_run() {
    assert_eq!(ask("/healthz", None).0, StatusCode::OK);
    // Between two runs as well: members wait for the next one.
    for status in [None, Some(status("gathering")), Some(status("finished"))] {
        assert_eq!(ask("/readyz", status).0, StatusCode::OK);
    }
    let unreadable = Err(io::Error::other("the disk is gone"));
    let hindered = answer(&Method::GET, "/readyz", unreadable, PID);
    assert_eq!(hindered.status(), StatusCode::SERVICE_UNAVAILABLE);
    let mut of_another = status("running");
    of_another.pid = PID + 1;
    // What another process left behind is not measured.
    let (_, page) = ask("/metrics", Some(of_another));
    assert_eq!(names(&page), BTreeSet::from(["fedlora_build_info"]));
    assert_eq!(ask("/", None).0, StatusCode::NOT_FOUND);
    let posted = answer(&Method::POST, "/metrics", Ok(None), PID);
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/deploy/grafana/fedlora.json");
    let text = std::fs::read_to_string(&path).expect("the dashboard is there");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let (_, page) = ask("/metrics", Some(status("running")));
    let known = names(&page);
    let mut asked = BTreeSet::new();
    for target in panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
    {
        let query = target["expr"].as_str().expect("a query");
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<_> = words.filter(|word| word.starts_with("fedlora_")).collect();
        assert!(!metrics.is_empty(), "{query}");
        asked.extend(metrics);
    }
    let missing: Vec<_> = asked.difference(&known).collect();
    assert!(missing.is_empty(), "the dashboard asks for {missing:?}");
    assert!(asked.len() > 10, "{asked:?}");
}
