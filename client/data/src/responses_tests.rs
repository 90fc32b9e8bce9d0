//! Templates in each of the ways to find the assistant's turns, and what each leaves out.

use std::collections::BTreeMap;

use super::super::records::{Content, parse_line};
use super::*;

/// A prompt for the turn that the turn begins with.
const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {{ m['content'].strip() }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// The prompt opens a thought, and thoughts are cut out of the turns.
const THINKING: &str = "{% for m in messages %}{% if m.role == 'user' %}<U>{{ m.content }}\
    {% elif m.role == 'assistant' %}<A>{{ m.content.split('</think>')[-1] }}<E>{% endif %}\
    {% endfor %}{% if add_generation_prompt %}<A><think>\n{% endif %}";
/// The system text stands in the last user's turn, and there is no prompt for a turn.
const MOVED: &str = "{% set system = messages[0].content if messages[0].role == 'system' %}\
    {% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[I]\
    {% if loop.last or loop.index0 == messages | length - 3 %}{{ system ~ ' ' if system }}{% endif %}\
    {{ m.content }}[/I]{% else %} {{ m.content | trim }}<E>{% endif %}{% endfor %}";
/// Thoughts of the last turn alone are shown, from a key of their own.
const LAST_THOUGHT: &str = "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content and \
    loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<E>{% endfor %}\
    {% if add_generation_prompt %}<assistant>{% endif %}";
/// The template marks the assistant's text.
const MARKED: &str = "{% for m in messages %}<{{ m.role }}>\n{%- if m.role == 'assistant' %}\
    {% generation %}{{ m.content }}<E>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\
    {% endfor %}";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, BTreeMap::new()).unwrap()
}

fn chat(json: &str) -> super::super::chat::Chat {
    match parse_line(json.as_bytes()).unwrap().unwrap().content {
        Content::Chat(chat) => chat,
        Content::Text(_) => panic!("a text"),
    }
}

/// The responses' texts.
fn found(source: &str, json: &str) -> Vec<String> {
    let chat = chat(json);
    let responses = template(source).render_responses(&chat).unwrap();
    let texts = responses
        .found
        .iter()
        .map(|one| responses.text[one.text.clone()].to_owned());
    texts.collect()
}

/// Fields and causes of what is left out.
fn lost(source: &str, json: &str) -> Vec<(String, Cause)> {
    let chat = chat(json);
    let template = template(source);
    let text = template.render(&chat, false).unwrap();
    let lost = left_out(&template, (&chat).into(), &text).unwrap();
    lost.into_iter().map(|one| (one.field, one.cause)).collect()
}

const TWO: &str = r#"{"messages": [{"role": "user", "content": "Q1"},
    {"role": "assistant", "content": "A1"}, {"role": "user", "content": "Q2"},
    {"role": "assistant", "content": "A2"}]}"#;

#[test]
fn the_response_is_what_follows_the_prompt() {
    assert_eq!(found(CHATML, TWO), ["A1<|im_end|>\n", "A2<|im_end|>\n"]);
    let responses = template(CHATML).render_responses(&chat(TWO)).unwrap();
    let ends = responses
        .found
        .iter()
        .map(|one| &responses.text[..one.words_end]);
    assert!(
        ends.zip(["A1", "A2"])
            .all(|(text, words)| text.ends_with(words))
    );
}

#[test]
fn a_prompt_that_opens_more_than_the_turn_holds_ends_where_they_part() {
    assert_eq!(found(THINKING, TWO), ["A1<E>", "A2<E>"]);
    // An answer that begins like the opened thought keeps its beginning.
    let tagged = TWO.replace("A1", "<thin> A1");
    assert_eq!(found(THINKING, &tagged), ["<thin> A1<E>", "A2<E>"]);
    let thought = TWO.replace("A2", "<think>\\nT\\n</think>A2");
    assert_eq!(found(THINKING, &thought), ["A1<E>", "A2<E>"]);
    assert_eq!(
        lost(THINKING, &thought),
        [("content".to_owned(), Cause::Thought)]
    );
    assert_eq!(template(THINKING).warnings()[0].kind, "generation_prompt");
    assert_eq!(template(CHATML).warnings(), []);
}

#[test]
fn a_template_that_moves_the_system_text_is_trained_on_whole() {
    let system = TWO.replace("[{", r#"[{"role": "system", "content": "S"}, {"#);
    let chat = chat(&system);
    let rendered = template(MOVED).render(&chat, false).unwrap();
    assert_eq!(rendered, "[I]Q1[/I] A1<E>[I]S Q2[/I] A2<E>");
    assert_eq!(found(MOVED, &system), [" A1<E>", " A2<E>"]);
    assert_eq!(lost(MOVED, &system), []);
}

#[test]
fn a_text_whose_beginning_counts_all_turns_is_found_by_a_sentinel() {
    let counting = format!("{{{{ messages | length }}}}{CHATML}");
    assert_eq!(found(&counting, TWO), ["A1<|im_end|>\n", "A2<|im_end|>\n"]);
}

#[test]
fn turns_that_no_rendering_shows_are_refused_or_counted() {
    let last = "{{ messages[-1].content }}<E>";
    let responses = template(last).render_responses(&chat(TWO)).unwrap();
    assert_eq!((responses.found.len(), responses.missed), (1, 1));
    assert_eq!(&responses.text[responses.found[0].text.clone()], "A2<E>");
    let none = template("{{ messages[0].content }}").render_responses(&chat(TWO));
    assert!(
        matches!(none, Err(TemplateError::NoTurn { turn: 2 })),
        "{none:?}"
    );
}

#[test]
fn the_templates_own_marks_decide() {
    assert_eq!(found(MARKED, TWO), ["A1<E>", "A2<E>"]);
    let rendered = template(MARKED).render(&chat(TWO), false).unwrap();
    assert_eq!(rendered, "<user>Q1<assistant>A1<E><user>Q2<assistant>A2<E>");
    let untrained = TWO.replace(r#""A1""#, r#""A1", "weight": 0"#);
    assert_eq!(found(MARKED, &untrained), ["A2<E>"]);
    assert_eq!(found(CHATML, &untrained), ["A2<|im_end|>\n"]);
}

#[test]
fn keys_that_the_template_shows_are_no_loss_and_all_others_are_named() {
    let thought = TWO.replace(r#""A2""#, r#""A2", "reasoning_content": "T""#);
    assert_eq!(lost(LAST_THOUGHT, &thought), []);
    assert!(found(LAST_THOUGHT, &thought)[1].contains("<think>T</think>"));
    let shown = |field: &str, cause| (field.to_owned(), cause);
    assert_eq!(
        lost(CHATML, &thought),
        [shown("reasoning_content", Cause::NotShown)]
    );
    let both = thought.replace(r#""A1""#, r#""A1", "reasoning_content": "Elsewhere""#);
    assert_eq!(
        lost(LAST_THOUGHT, &both),
        [shown("reasoning_content", Cause::PartlyShown)]
    );
    let labels = TWO.replace(r#""Q1""#, r#""Q1", "id": 7, "lang": "en", "name": "ann""#);
    assert_eq!(lost(CHATML, &labels), [shown("name", Cause::NotShown)]);
    let cut = CHATML.replace("m['content'].strip()", "m.content[:1]");
    assert_eq!(
        lost(&cut, TWO),
        ["user", "assistant", "user", "assistant"]
            .map(|role| shown("content", Cause::Turn { role }))
    );
    let json = CHATML.replace("m['content'].strip()", "m.content | tojson");
    assert_eq!(lost(&json, &TWO.replace("Q1", "Q\\n\\\"1\\\"")), []);
}

#[test]
fn tools_are_shown_or_named_and_a_lost_call_is_refused() {
    let call = r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant",
        "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1, "a": 2}}}]},
        {"role": "tool", "content": "R"}, {"role": "assistant", "content": "A"}],
        "tools": [{"function": {"name": "f"}}]}"#;
    let shows = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>\
        {% if m.tool_calls %}{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}<E>\
        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    assert_eq!(lost(shows, call), []);
    // The order of the keys is the record's.
    let first = found(shows, call).remove(0);
    assert!(
        first.contains(r#""arguments": {"b": 1, "a": 2}"#),
        "{first}"
    );
    let hides = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<E>{% endfor %}";
    let record = chat(call);
    let template = template(hides);
    let text = template.render(&record, false).unwrap();
    assert!(!text.contains("None"), "{text}");
    let refused = left_out(&template, (&record).into(), &text).unwrap_err();
    assert!(
        matches!(refused, LineProblem::CallAlone { turn: 2, .. }),
        "{refused}"
    );
    let with_text = call.replace("null", "\"Let me look.\"");
    let lost = lost(hides, &with_text);
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(lost.iter().all(|(_, cause)| *cause == Cause::NotShown));
}

#[test]
fn a_role_under_another_name_reaches_a_template_that_knows_it() {
    let json = r#"{"messages": [{"role": "developer", "content": "S"}, {"role": "human",
        "content": "Q"}, {"role": "gpt", "content": "A"}]}"#;
    let plain = template(CHATML).render(&chat(json), false).unwrap();
    assert!(plain.starts_with("<|im_start|>system\nS"), "{plain}");
    let knows = format!("{{% if messages[0].role == 'developer' %}}D{{% endif %}}{CHATML}");
    let knows = template(&knows).render(&chat(json), false).unwrap();
    assert!(knows.starts_with("D<|im_start|>developer\nS"), "{knows}");
}
