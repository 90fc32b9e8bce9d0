//! Each form of records, under the names and in the shapes that public data sets use.

use super::super::records::parse_line;
use super::*;

fn parsed(json: &str) -> Parsed {
    parse_line(json.as_bytes()).unwrap().unwrap()
}

/// Roles, contents, and whether each turn is trained on.
fn turns(json: &str) -> Vec<(&'static str, String, bool)> {
    match parsed(json).content {
        Content::Chat(chat) => chat
            .iter()
            .map(|turn| (turn.role, turn.content.clone(), turn.trained))
            .collect(),
        Content::Text(_) => panic!("a text"),
    }
}

fn lost(json: &str) -> Vec<String> {
    parsed(json)
        .left_out
        .into_iter()
        .map(|one| one.field)
        .collect()
}

fn problem(json: &str) -> String {
    let problem = parse_line(json.as_bytes()).unwrap_err();
    let shown = problem.to_string();
    assert!(!shown.contains("SECRET"), "{shown}");
    shown
}

const QA: &str = r#"{"instruction": "Q", "output": "A"}"#;

#[test]
fn a_question_and_its_answer_are_read_under_all_usual_names() {
    let whole = parsed(QA).content;
    for (question, answer) in [
        ("instruction", "response"),
        ("prompt", "completion"),
        ("prompt", "response"),
        ("question", "answer"),
        ("Question", "Answer"),
        ("query", "response"),
        ("problem", "solution"),
        ("input", "output"),
        ("user", "assistant"),
    ] {
        let json = format!(r#"{{"{question}": "Q", "{answer}": "A"}}"#);
        assert_eq!(parsed(&json).content, whole, "{json}");
    }
    let context = turns(r#"{"question": "Q", "answer": "A", "context": "C"}"#);
    assert_eq!(context[0].1, "Q\n\nC");
    let context = turns(r#"{"instruction": "Q", "output": "A", "input": "I", "context": "C"}"#);
    assert_eq!(context[0].1, "Q\n\nI\n\nC");
    assert_eq!(
        turns(r#"{"instruction": "", "input": "I", "output": "A"}"#)[0].1,
        "I"
    );
}

#[test]
fn chats_are_read_under_all_usual_names() {
    let share =
        r#"{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}"#;
    assert_eq!(turns(share), turns(QA));
    let text = r#"{"messages": "[{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\"}]"}"#;
    assert_eq!(turns(text), turns(QA));
    let parts = r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]},
        {"role": "Assistant", "content": [{"type": "text", "text": "A"}, "B"]}]}"#;
    assert_eq!(turns(parts)[1].1, "AB");
    let roles = r#"{"messages": [{"role": "developer", "content": "S"}, {"role": "prompter", "content": "Q"},
        {"role": "ipython", "content": "R"}, {"role": "function", "content": "R"}, {"role": "model", "content": "A"}]}"#;
    let roles: Vec<_> = turns(roles).into_iter().map(|(role, ..)| role).collect();
    assert_eq!(roles, ["system", "user", "tool", "tool", "assistant"]);
    let trl = r#"{"prompt": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A0"},
        {"role": "user", "content": "Q1"}], "completion": [{"role": "assistant", "content": "A"}]}"#;
    let trained: Vec<_> = turns(trl)
        .into_iter()
        .map(|(.., trained)| trained)
        .collect();
    assert_eq!(trained, [false, false, false, true]);
}

#[test]
fn a_system_turn_and_earlier_turns_beside_a_question_are_part_of_the_chat() {
    for name in ["system", "system_prompt", "systemPrompt", "system_message"] {
        let json = format!(r#"{{"instruction": "Q", "output": "A", "{name}": "S"}}"#);
        assert_eq!(turns(&json)[0], ("system", "S".to_owned(), true), "{name}");
        let chat = format!(
            r#"{{"conversations": [{{"from": "human", "value": "Q"}}, {{"from": "gpt", "value": "A"}}], "{name}": "S"}}"#
        );
        assert_eq!(turns(&chat), turns(&json), "{name}");
    }
    let history = r#"{"instruction": "Q", "output": "A", "history": [["Q0", "A0"], ["Q1", "A1"]]}"#;
    let said: Vec<_> = turns(history)
        .into_iter()
        .map(|(_, said, _)| said)
        .collect();
    assert_eq!(said, ["Q0", "A0", "Q1", "A1", "Q", "A"]);
    let messages =
        r#"{"question": "Q", "answer": "A", "history": [{"role": "user", "content": "Q0"}]}"#;
    assert_eq!(turns(messages)[0].1, "Q0");
    assert_eq!(lost(history), [""; 0]);
}

#[test]
fn what_has_no_place_is_named_and_labels_are_free() {
    let own = r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A"}], "system": "Other", "history": [["Q0", "A0"]],
        "weight": 0.5, "score": NaN, "prompt_id": "x", "prompt": "Q", "site": "north"}"#;
    assert_eq!(lost(own), ["history", "system", "weight"]);
    assert_eq!(parsed(own).labels["site"], "north");
    assert_eq!(
        lost(r#"{"text": "T", "system": "S", "source": "wiki"}"#),
        ["system"]
    );
    assert_eq!(
        lost(r#"{"text": "Q: Q\nA: A", "instruction": "Q", "output": "A"}"#),
        [""; 0]
    );
    assert_eq!(
        lost(r#"{"instruction": "Q", "output": "A", "system": NaN, "input": NaN}"#),
        [""; 0]
    );
    assert_eq!(
        lost(r#"{"instruction": "Q", "output": "A", "rationale": "R"}"#),
        ["rationale"]
    );
    let chat = r#"{"messages": [{"role": "user", "content": "Q", "weight": 1},
        {"role": "assistant", "content": "A", "weight": 0.5}]}"#;
    let causes: Vec<_> = parsed(chat).left_out.iter().map(|one| one.cause).collect();
    assert_eq!(causes, [Cause::OtherRole, Cause::Weight]);
}

#[test]
fn tools_and_variables_are_the_templates() {
    let names = |json: &str| match parsed(json).content {
        Content::Chat(chat) => chat
            .context
            .0
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect::<Vec<_>>(),
        Content::Text(_) => panic!("a text"),
    };
    let chat =
        r#""messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]"#;
    let tools = r#"[{"b": 1, "a": 2}]"#;
    let as_list = names(&format!(r#"{{{chat}, "tools": {tools}}}"#));
    let as_text = names(&format!(
        r#"{{{chat}, "tools": "[{{\"b\": 1, \"a\": 2}}]"}}"#
    ));
    assert_eq!(as_list, as_text);
    assert!(as_list[0].1.starts_with(r#"[{"b""#), "{as_list:?}");
    let older = names(&format!(r#"{{{chat}, "functions": [{{"name": "f"}}]}}"#));
    assert!(
        older[0].0 == "tools" && older[0].1.contains("function"),
        "{older:?}"
    );
    let variables = names(&format!(
        r#"{{{chat}, "chat_template_kwargs": {{"enable_thinking": false, "messages": []}}}}"#
    ));
    assert_eq!(
        variables,
        [("enable_thinking".to_owned(), "False".to_owned())]
    );
    assert!(problem(&format!(r#"{{{chat}, "tools": "SECRET"}}"#)).contains("should hold JSON"));
}

#[test]
fn refusals_say_what_stands_there_and_what_would_do() {
    let preference = problem(r#"{"prompt": "SECRET", "chosen": "SECRET", "rejected": "SECRET"}"#);
    assert!(
        preference.starts_with("chosen + prompt + rejected is preference data"),
        "{preference}"
    );
    for (json, said) in [
        (
            r#"{"question": "SECRET", "site": "x"}"#,
            "an object with question and a field of another",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "SECRET", "weight": 0}]}"#,
            "every turn of the assistant has weight 0",
        ),
        (
            r#"{"instruction": "Q", "output": NaN}"#,
            "field 'output' is NaN or Infinity",
        ),
        (
            r#"{"instruction": "Q", "output": "SECRET\ud83d"}"#,
            "field 'output' holds half a character",
        ),
        (
            r#"{"messages": [{"role": "SECRET", "content": "x"}]}"#,
            "field 'messages[0].role' is no role",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "SECRET"}]}]}"#,
            "field 'messages[0].content[0]' is a content part other than text",
        ),
        (
            r#"{"instruction": "Q", "output": "A", "history": "SECRET"}"#,
            "field 'history' is text",
        ),
        (
            r#"{"instruction": "Q", "output": "A", "history": [["a"]]}"#,
            "field 'history[0]' is an array",
        ),
    ] {
        let shown = problem(json);
        assert!(shown.starts_with(said), "{shown}");
    }
    let unused =
        parsed(r#"{"instruction": "Q", "output": "A", "cut": "x\udc00", "score": Infinity}"#);
    assert!(unused.left_out.is_empty() && unused.labels.is_empty());
}

#[test]
fn a_call_as_a_turn_of_its_own_is_the_assistants() {
    let json = r#"{"conversations": [{"from": "human", "value": "Q"}, {"from": "function_call",
        "value": "{\"name\": \"f\", \"arguments\": {}}"}, {"from": "observation", "value": "R"},
        {"from": "gpt", "value": "A"}]}"#;
    let roles: Vec<_> = turns(json).into_iter().map(|(role, ..)| role).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    let Content::Chat(chat) = parsed(json).content else {
        panic!("a text")
    };
    assert!(
        chat[1]
            .value("tool_calls")
            .is_some_and(|calls| calls.to_string().contains("\"f\""))
    );
    // The same chat without the call is another record.
    let record = |json: &str| {
        super::super::records::Record::new(
            parsed(json),
            super::super::records::Place::line(&"f".into(), 1),
        )
    };
    assert_ne!(
        record(json).digest(),
        record(&json.replace("\\\"f\\\"", "\\\"g\\\"")).digest()
    );
}
