//! What the record reader takes, and each thing that it must refuse.

use super::*;

fn read_text(text: &[u8]) -> (Vec<Record>, Vec<Problem>) {
    let found = read(text, "f.jsonl").unwrap();
    (found.records, found.problems)
}

fn problem(line: &str) -> LineProblem {
    parse_line(line.as_bytes()).unwrap_err()
}

#[test]
fn the_four_forms_are_read() {
    let (records, problems) = read_text(
        b"\xef\xbb\xbf{\"instruction\":\"I\",\"input\":\"X\",\"output\":\"O\",\"who\":\"a\"}\r\n\
          \n\
          {\"instruction\":\"I\",\"context\":\"X\",\"response\":\"O\"}\n\
          {\"messages\":[{\"role\":\"user\",\"content\":\"I\\n\\nX\"},\
          {\"role\":\"assistant\",\"content\":\"O\"}]}\n\
          {\"text\":\"T\"}",
    );
    assert_eq!(problems, []);
    let digests: Vec<_> = records.iter().map(Record::digest).collect();
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
    assert_ne!(digests[0], digests[3]);
    assert_eq!(records[0].label("who"), Some("a"));
    assert_eq!(records[0].label("output"), None);
    assert_eq!(records[3].place().to_string(), "f.jsonl:5");
}

#[test]
fn empty_and_null_inputs_count_as_none() {
    let parse = |line: &str| parse_line(line.as_bytes()).unwrap().unwrap().content;
    let without = parse(r#"{"instruction":"I","output":"O"}"#);
    assert_eq!(
        without,
        parse(r#"{"instruction":"I","input":"","output":"O"}"#)
    );
    assert_eq!(
        without,
        parse(r#"{"instruction":"I","input":null,"output":"O"}"#)
    );
}

#[test]
fn records_without_text_are_left_out_and_counted() {
    let lines = [
        r#"{"instruction":"I","output":""}"#,
        r#"{"instruction":" \n","output":"O"}"#,
        r#"{"text":"  "}"#,
        r#"{"messages":[{"role":"user","content":"U"},{"role":"assistant","content":""}]}"#,
        r#"{"instruction":"I","output":"O"}"#,
        r#"{"messages":[{"role":"system","content":""},{"role":"user","content":"U"},{"role":"assistant","content":"A"}]}"#,
    ];
    let found = read(lines.join("\n").as_bytes(), "f.jsonl").unwrap();
    assert_eq!(found.problems, []);
    assert_eq!(found.empty, 4);
    // An empty system message is left out.
    let without =
        r#"{"messages":[{"role":"user","content":"U"},{"role":"assistant","content":"A"}]}"#;
    let without = parse_line(without.as_bytes()).unwrap().unwrap().content;
    assert_eq!(found.records[1].content(), &without);
    assert_eq!(found.records.len(), 2);
}

#[test]
fn every_bad_line_is_reported_with_its_place_and_never_its_content() {
    let lines = [
        "{\"instruction\": \"SECRET\"",
        "[\"SECRET\"]",
        "{\"SECRET\": 1, \"output\": \"SECRET\"}",
        "{\"instruction\": \"SECRET\", \"output\": 7}",
        "{\"instruction\": \"SECRET\", \"output\": \" \"}",
        "{\"text\": [\"SECRET\"]}",
        "{\"messages\": [{\"role\": \"SECRET\", \"content\": \"x\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"SECRET\"}]}",
        "{\"messages\": {\"role\": \"SECRET\"}}",
        "{\"messages\": [\"SECRET\"]}",
        "{\"text\": \"fine\"}",
        "SECRET",
    ];
    let (records, problems) = read_text(lines.join("\n").as_bytes());
    assert_eq!(records.len(), 1);
    // All but the fine one and the one without a response.
    assert_eq!(problems.len(), lines.len() - 2);
    for problem in &problems {
        let shown = format!("{problem} {problem:?}");
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(shown.starts_with("f.jsonl:"), "{shown}");
    }
    assert_eq!(problems[9].place.line, 12);
    assert_eq!(
        problem("{\"SECRET\": 1, \"output\": \"SECRET\"}").to_string(),
        format!(
            "an object with output and a field of another name: expected {}",
            crate::problem::FORMS
        )
    );
}

#[test]
fn debug_shows_no_content() {
    let (records, _) = read_text(b"{\"text\":\"SECRET\",\"who\":\"SECRET\"}\n{\"instruction\":\"SECRET\",\"output\":\"SECRET\"}");
    assert!(!format!("{records:?}").contains("SECRET"));
}

#[test]
fn other_encodings_are_named() {
    let utf16: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain("{}\n{}".encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    let (_, problems) = read_text(&utf16);
    assert_eq!(problems.len(), 1, "one report for the file, not one a line");
    assert_eq!(
        problems[0].to_string(),
        "f.jsonl:1: not UTF-8 but UTF-16: save the file as UTF-8"
    );
    let (_, problems) = read_text(b"{\"text\":\"\xe9\"}");
    assert_eq!(problems[0].what, LineProblem::Encoding { hint: "" });
}

#[test]
fn a_record_over_several_lines_is_reported_once() {
    let (_, problems) = read_text(b"{\n  \"text\": \"SECRET\"\n}\n{\n}");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].what, LineProblem::OverLines);
}

#[test]
fn a_line_that_is_too_long_is_skipped_without_holding_it() {
    let mut text = vec![b'x'; LONGEST_LINE + 1];
    text.extend(b"\n{\"text\":\"next\"}");
    let (records, problems) = read_text(&text);
    assert_eq!(records.len(), 1);
    assert_eq!(problems[0].what, LineProblem::TooLong);
    assert_eq!(records[0].place().line, 2);
}

#[test]
fn deep_nesting_is_refused() {
    let line = format!("{{\"text\":{}", "[".repeat(100_000));
    assert!(matches!(problem(&line), LineProblem::Json { .. }));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let _ = read(bytes.as_slice(), "f");
        let _ = parse_line(&bytes);
    }

    #[test]
    fn any_json_like_line_is_read_without_panic(
        line in "\\{\"(messages|text|instruction|output)\":[\\[\\]{}\",:a-z0-9\\\\]{0,40}\\}?"
    ) {
        let _ = parse_line(line.as_bytes());
    }

    #[test]
    fn what_is_written_is_read(question in "[^\\s]\\PC{0,40}", answer in "[^\\s]\\PC{0,40}") {
        let line = serde_json::json!({"instruction": question, "output": answer}).to_string();
        let parsed = parse_line(line.as_bytes()).unwrap().unwrap();
        let Content::Chat(turns) = parsed.content else { panic!("not a chat") };
        proptest::prop_assert_eq!(&turns[0].content, &question);
        proptest::prop_assert_eq!(&turns[1].content, &answer);
    }
}
