//! Contents, escaping, refusals.

use std::fs;

use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use serde_json::{Value, json};

use super::*;
use crate::audit;
use crate::run_directory::RunDirectory;
use crate::test_operator::{
    ABORTED, FAILED, FINISHED, HONEST, LIVE, MEMBERS, Operator, QUEUED, Words,
};

const HOSTILE: Words = Words {
    federation: "<b>Fed</b>'\" & co",
    base: "x\"><script>alert(1)</script>",
    problem: "</td><script src=//evil.example></script>",
    release: "<img src=x onerror=alert(1)>",
    reason: "\u{202e}<svg onload=alert(1)>",
};

#[test]
fn the_view_of_a_federation_tells_what_an_operator_asks() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::with_runs(&folder.path().join("operator"), &HONEST);
    let site = site(vec![operator.shown.clone()]);
    let page = ask(&site, "/");
    for words in [
        "<h1>Cardiology consortium</h1>",
        // The stage, for whom it waits, and until when.
        "Round 6 of 12: members train, and upload masked updates.",
        "<b>3 of 6</b> ready",
        "2026-11-27 22:52 UTC",
        "112 min left",
        "5 of 12",
        "2.790",
        "148.3 MB",
        "151.9 MB",
        // Members: program, transport, when last seen, certificate.
        "Round 6, attempt 1, updates.",
        ">QUIC<",
        ">TCP<",
        ">away<",
        ">0.0.9<",
        "90 min ago",
        "only until 2026-12-18",
        // Who has joined and is not in the run.
        "zoo-clinic",
        "not in the run",
        // What somebody should look at.
        "below this member&#39;s floor of 16",
        "the certificate ends on 2026-12-18",
        // Runs.
        "One plan waits.",
        "2 of 4 survivors confirmed the list",
        "wrong base model",
        "http-equiv=\"refresh\" content=\"10\"",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    for name in MEMBERS {
        assert!(page.contains(name), "{name}");
    }
    for (run, state) in [
        (LIVE, "served"),
        (FINISHED, "finished"),
        (FAILED, "failed"),
        (ABORTED, "aborted"),
        (QUEUED, "queued"),
    ] {
        let row = page
            .split("<tr>")
            .find(|row| row.contains(&format!("run/{run}\"")));
        let row = row.unwrap_or_else(|| panic!("{run} is not listed"));
        assert!(row.contains(&format!(">{state}</span>")), "{row}");
    }
    // The words of the log's head are those that members and `audit verify` show.
    let folder = RunDirectory::of(operator.shown.directory.store(), LIVE).unwrap();
    let verified = audit::verify(&folder).unwrap();
    for word in verified.words.split(' ') {
        assert!(page.contains(&format!("<li>{word}</li>")), "{word}");
    }
    assert!(page.contains(&verified.head));
    // It can be told to stand still.
    assert!(!ask(&site, "/?still").contains("http-equiv=\"refresh\""));
}

#[test]
fn the_view_of_a_run_names_survivors_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::with_runs(&folder.path().join("operator"), &HONEST);
    let site = site(vec![operator.shown.clone()]);
    let page = ask(&site, &format!("/federation/1/run/{FINISHED}"));
    let row = page
        .split("<tr>")
        .find(|row| row.contains("<th scope=\"row\">2</th>"));
    let row = row.expect("round 2");
    let dropped = row
        .split("data-label=\"Dropped\"")
        .nth(1)
        .expect("who dropped");
    assert!(
        dropped.contains("device-vendor") && !dropped.contains("web-soc"),
        "{row}"
    );
    let sum = row
        .split("data-label=\"Dropped\"")
        .next()
        .expect("who is in the sum");
    assert!(sum.contains("<b>5</b>") && sum.contains("web-soc"), "{row}");
    assert!(!sum.contains("device-vendor"), "{row}");
    for words in [
        "3.118",
        "attempt 2",
        "Pooled loss",
        "<svg class=\"wide\"",
        "SmolLM2-135M",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    // One that is over does not change.
    assert!(!page.contains("http-equiv=\"refresh\""));
    // One that has only been queued has nothing to show, and is shown all the same.
    let page = ask(&site, &format!("/federation/1/run/{QUEUED}"));
    assert!(page.contains("There is nothing to show"), "{page}");
}

#[test]
fn several_federations_have_a_view_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let one = Operator::with_runs(&folder.path().join("one"), &HONEST);
    let other = Operator::new(&folder.path().join("other"), "Oncology", &["a".to_owned()]);
    let site = site(vec![one.shown.clone(), other.shown.clone()]);
    let page = ask(&site, "/");
    assert!(
        page.contains("<a href=\"/federation/1\">Cardiology consortium</a>"),
        "{page}"
    );
    assert!(
        page.contains("<a href=\"/federation/2\">Oncology</a>"),
        "{page}"
    );
    assert!(page.contains("No run was served yet."), "{page}");
    assert!(ask(&site, "/federation/2").contains("<h1>Oncology</h1>"));
    // A run is one of its own federation.
    for path in [
        "/federation/3".to_owned(),
        format!("/federation/2/run/{LIVE}"),
    ] {
        let (answer, _) = ask_as(&site, Method::GET, &path, "localhost");
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn whatever_is_written_by_others_is_text() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::with_runs(&folder.path().join("operator"), &HOSTILE);
    let site = site(vec![operator.shown.clone(), operator.shown.clone()]);
    let mut pages = vec![ask(&site, "/"), ask(&site, "/federation/1")];
    for run in [LIVE, FINISHED, FAILED, ABORTED, QUEUED] {
        pages.push(ask(&site, &format!("/federation/1/run/{run}")));
    }
    for page in &pages {
        let (_, body) = page.split_once("</style>").expect("a style sheet");
        for sign in [
            "<script",
            "<img",
            "<svg onload",
            "<b>Fed",
            "\u{202e}",
            "javascript:",
        ] {
            assert!(!body.contains(sign), "{sign}: {body}");
        }
        assert_eq!(page.matches("<style>").count(), 1);
        assert!(
            page.contains("&lt;b&gt;Fed&lt;/b&gt;&#39;&quot; &amp; co"),
            "{page}"
        );
    }
    assert!(
        pages[1].contains("&lt;script src=//evil.example&gt;"),
        "{}",
        pages[1]
    );
    // The document for programs has it as it is.
    let document: Value = serde_json::from_str(&ask(&site, "/api/status.json")).unwrap();
    let first = &document["federations"][0];
    assert_eq!(first["federation"], HOSTILE.federation);
    assert_eq!(first["status"]["members"][3]["problem"], HOSTILE.problem);
}

#[test]
fn the_document_for_programs_has_what_the_page_has() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::with_runs(&folder.path().join("operator"), &HONEST);
    let site = site(vec![operator.shown.clone()]);
    let text = ask(&site, "/api/status.json");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["release"], env!("CARGO_PKG_VERSION"));
    let one = &document["federations"][0];
    assert_eq!(
        (&one["number"], &one["federation"]),
        (&json!(1), &json!(HONEST.federation))
    );
    assert_eq!(one["status"]["stage"]["awaited"], json!(&MEMBERS[3..]));
    assert_eq!(one["members"].as_array().map(Vec::len), Some(7));
    let states: Vec<_> = one["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| &run["state"])
        .collect();
    assert_eq!(
        states,
        ["finished", "failed", "aborted", "served", "queued"]
    );
    let current = &one["current"];
    assert_eq!(current["rounds"].as_array().map(Vec::len), Some(5));
    assert_eq!(current["rounds"][1]["dropped"], json!(["device-vendor"]));
    assert_eq!(
        current["words"]
            .as_str()
            .map(|words| words.split(' ').count()),
        Some(8)
    );
    let kinds: Vec<_> = one["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert!(
        kinds.contains(&&json!("member")) && kinds.contains(&&json!("certificate")),
        "{kinds:?}"
    );
    let run = ask(&site, &format!("/api/federation/1/run/{FINISHED}.json"));
    let run: Value = serde_json::from_str(&run).unwrap();
    assert_eq!(run["rounds"].as_array().map(Vec::len), Some(8));
    // Where things lie, and what is secret, is in none.
    let root = folder.path().display().to_string();
    assert!(!text.contains(&root) && !text.contains(".key"), "{text}");
}

#[test]
fn what_another_process_left_is_not_live() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::with_runs(&folder.path().join("operator"), &HONEST);
    let mut status = operator.live(&HONEST);
    status["pid"] = json!(PID + 1);
    operator.status(&status);
    let page = ask(&site(vec![operator.shown.clone()]), "/");
    assert!(
        page.contains(">stopped</span>") && !page.contains("id=\"now\""),
        "{page}"
    );
}

#[test]
fn damaged_files_are_problems_and_the_rest_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::with_runs(&folder.path().join("operator"), &HONEST);
    let root = operator.shown.directory.root().to_owned();
    fs::write(root.join("status.json"), "{").unwrap();
    let results = root.join(format!("runs/{FINISHED}/results.jsonl"));
    let text = fs::read_to_string(&results).unwrap();
    fs::write(
        &results,
        text.replacen("\"total_weight\":6", "\"total_weight\":7", 1),
    )
    .unwrap();
    let evidence = root.join(format!("runs/{LIVE}/evidence"));
    fs::create_dir_all(&evidence).unwrap();
    fs::write(evidence.join("round-0001-attempt-1-member-2.json"), "{}").unwrap();
    let page = ask(&site(vec![operator.shown.clone()]), "/");
    assert!(page.contains("status.json cannot be read"), "{page}");
    assert!(
        page.contains("result 1 is not signed by the aggregator"),
        "{page}"
    );
    assert!(!page.contains(&root.display().to_string()), "{page}");
    assert!(page.contains(">aborted</span>"), "{page}");
    // A run that finished has no other reason than that its files are damaged.
    assert!(
        page.contains("its files cannot be read: result 1"),
        "{page}"
    );
    // With the status back, evidence of the run that is served is told of.
    operator.status(&operator.live(&HONEST));
    let page = ask(&site(vec![operator.shown.clone()]), "/");
    assert!(
        page.contains("evidence that a member broke the protocol, one piece"),
        "{page}"
    );
}

#[test]
fn what_is_read_again_shows_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::with_runs(&folder.path().join("operator"), &HONEST);
    let site = site(vec![operator.shown.clone()]);
    let path = format!("/api/federation/1/run/{LIVE}.json");
    let rounds = |site: &Site| {
        let document: Value = serde_json::from_str(&ask(site, &path)).unwrap();
        let rounds = document["rounds"].as_array().map(Vec::len);
        (rounds, document["words"].as_str().map(str::to_owned))
    };
    let (before, words) = rounds(&site);
    operator.run(LIVE, HONEST.base, 12, &[3.0, 2.9, 2.8, 2.7, 2.6, 2.5]);
    let (after, other) = rounds(&site);
    assert_eq!((before, after), (Some(5), Some(6)));
    assert_ne!(words, other);
}

#[test]
fn only_reading_requests_to_this_host_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::new(&folder.path().join("operator"), "test", &[]);
    let site = site(vec![operator.shown.clone()]);
    let code = |method, path: &str, host: &str| ask_as(&site, method, path, host).0.status();
    for (method, path, host, expected) in [
        (Method::GET, "/", "127.0.0.1:9465", StatusCode::OK),
        (Method::HEAD, "/", "localhost", StatusCode::OK),
        (
            Method::POST,
            "/",
            "localhost",
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            Method::OPTIONS,
            "/",
            "localhost",
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            Method::DELETE,
            "/api/status.json",
            "localhost",
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        // A name that somebody let lead here.
        (
            Method::GET,
            "/",
            "rebound.evil.example",
            StatusCode::MISDIRECTED_REQUEST,
        ),
        (
            Method::GET,
            "/api/status.json",
            "evil.example:9465",
            StatusCode::MISDIRECTED_REQUEST,
        ),
        (
            Method::GET,
            "/identity.key",
            "localhost",
            StatusCode::NOT_FOUND,
        ),
        (
            Method::GET,
            "/../identity.key",
            "localhost",
            StatusCode::NOT_FOUND,
        ),
        (
            Method::GET,
            "/federation/0",
            "localhost",
            StatusCode::NOT_FOUND,
        ),
    ] {
        assert_eq!(
            code(method.clone(), path, host),
            expected,
            "{method} {path} at {host}"
        );
    }
    let (refused, _) = ask_as(&site, Method::POST, "/", "localhost");
    assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    // Every answer, a refusal too, is kept to itself.
    for (path, host) in [
        ("/", "localhost"),
        ("/none", "localhost"),
        ("/", "evil.example"),
    ] {
        let (answer, body) = ask_as(&site, Method::GET, path, host);
        let headers = answer.headers();
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[REFERRER_POLICY], "no-referrer");
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        if path == "/" && host == "localhost" {
            assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
            assert!(!body.contains(" style=\""), "the policy forbids it");
        } else {
            assert_eq!(headers[CONTENT_TYPE], "text/plain; charset=utf-8");
        }
    }
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused() {
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9465"] {
        let bound = Web::bind(open.parse().unwrap(), &[], Vec::new(), Arc::new(Stopped)).await;
        let error = bound.expect_err("it has no password");
        assert!(matches!(error, WebError::NotLoopback { .. }), "{error}");
    }
    let own = "127.0.0.1:0".parse().unwrap();
    let web = Web::bind(own, &[], Vec::new(), Arc::new(Stopped))
        .await
        .unwrap();
    let taken = Web::bind(web.address(), &[], Vec::new(), Arc::new(Stopped)).await;
    assert!(matches!(taken, Err(WebError::Listen { .. })), "{taken:?}");
}

#[test]
fn a_large_federation_makes_a_page_of_bounded_size() {
    let folder = tempfile::tempdir().unwrap();
    let members: Vec<_> = (0..100)
        .map(|number| format!("clinic-{number:03}"))
        .collect();
    let operator = Operator::new(&folder.path().join("operator"), "large", &members);
    let losses: Vec<f32> = (0..600)
        .map(|round| 2.0 + 1.0 / (1.0 + round as f32))
        .collect();
    operator.run(LIVE, "base", 900, &losses);
    let mut status = operator.live(&HONEST);
    status["rounds_done"] = json!(600);
    operator.status(&status);
    let site = site(vec![operator.shown.clone()]);
    let page = ask(&site, "/");
    assert!(page.len() < 400_000, "{}", page.len());
    assert!(
        page.contains("All 600 rounds of this run"),
        "{}",
        page.len()
    );
    let page = ask(&site, &format!("/federation/1/run/{LIVE}"));
    assert!(page.len() < 2_500_000, "{}", page.len());
    assert!(page.contains("350 rounds before them"), "{}", page.len());
}
