//! Generation on the embedded base.

use std::path::PathBuf;
use std::sync::LazyLock;

use super::*;
use crate::{Device, Engine};
use fedlora_data::Turn;

static BASE: LazyLock<(Engine, TextPipeline)> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/base");
    (
        Engine::open(&folder, &Device::Cpu).unwrap(),
        TextPipeline::from_folder(&folder).unwrap(),
    )
});

fn prompt() -> Vec<u32> {
    let turns = [Turn::new("user", "What is a buffer overflow?")];
    BASE.1.prompt(&turns).unwrap()
}

fn options(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens: NonZeroUsize::new(max_tokens).unwrap(),
        sampling: Sampling::Greedy,
        ends: BTreeSet::new(),
        stops: Vec::new(),
    }
}

fn run(prompt: &[u32], options: &GenerateOptions) -> (Generated, String) {
    let decoder = BASE.0.decoder(None).unwrap();
    let mut shown = String::new();
    let made = generate(decoder, &BASE.1, prompt, options, &mut |piece| {
        shown.push_str(piece);
        ControlFlow::Continue(())
    });
    (made.unwrap(), shown)
}

#[test]
fn greedy_tokens_are_the_likeliest_of_the_whole_pass_and_what_is_shown_is_the_text() {
    let (made, shown) = run(&prompt(), &options(12));
    assert_eq!(made.finish, Finish::Length);
    assert_eq!(made.tokens.len(), 12);
    assert_eq!(made.text, BASE.1.decode(&made.tokens).unwrap());
    assert_eq!(shown, made.text);
    let mut tokens = prompt();
    for &token in &made.tokens {
        let logits = BASE.0.logits(None, &tokens).unwrap();
        let last = &logits[logits.len() - BASE.0.vocab_size()..];
        let largest = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(last[token as usize], largest);
        tokens.push(token);
    }
}

#[test]
fn an_end_token_ends_the_text_and_is_no_part_of_it() {
    let (long, _) = run(&prompt(), &options(12));
    let end = long.tokens[7];
    let first = long.tokens.iter().position(|&t| t == end).unwrap();
    let options = GenerateOptions {
        ends: [end].into(),
        ..options(12)
    };
    let (made, _) = run(&prompt(), &options);
    assert_eq!(made.finish, Finish::End);
    assert_eq!(made.tokens, long.tokens[..first]);
}

#[test]
fn a_stop_text_ends_the_text_before_it() {
    let (long, _) = run(&prompt(), &options(12));
    // Across a boundary of tokens: the end of one, the beginning of the next.
    let before = BASE.1.decode(&long.tokens[..6]).unwrap();
    let at = before.char_indices().next_back().unwrap().0;
    let stop: String = long.text[at..].chars().take(3).collect();
    let found = long.text.find(&stop).unwrap();
    let options = GenerateOptions {
        stops: vec![stop.parse().unwrap()],
        ..options(12)
    };
    let (made, shown) = run(&prompt(), &options);
    assert_eq!(made.finish, Finish::Stop);
    assert_eq!(made.text, long.text[..found]);
    assert_eq!(shown, made.text);
}

#[test]
fn seeds_repeat_and_differ() {
    let draw = |seed| {
        let options = GenerateOptions {
            sampling: Sampling::random(1.0, None, 0.95, seed).unwrap(),
            ..options(10)
        };
        run(&prompt(), &options).0.tokens
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn the_last_position_is_used_and_no_more() {
    let positions = BASE.0.max_tokens();
    let long: Vec<u32> = prompt().into_iter().cycle().take(positions - 1).collect();
    let (made, _) = run(&long, &options(99));
    assert_eq!((made.finish, made.tokens.len()), (Finish::Positions, 2));
    let longer: Vec<u32> = prompt().into_iter().cycle().take(positions + 1).collect();
    let decoder = BASE.0.decoder(None).unwrap();
    let refused = generate(decoder, &BASE.1, &longer, &options(1), &mut |_| {
        ControlFlow::Continue(())
    });
    let expected = DecodeError::Positions {
        got: positions + 1,
        positions,
    };
    assert!(matches!(refused, Err(GenerateError::Decode(error)) if error == expected));
}

#[test]
fn whoever_watches_may_end_it_and_debug_shows_no_text() {
    let decoder = BASE.0.decoder(None).unwrap();
    let mut pieces = 0;
    let made = generate(decoder, &BASE.1, &prompt(), &options(50), &mut |_| {
        pieces += 1;
        if pieces == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!((made.finish, pieces), (Finish::Interrupted, 2));
    let shown = format!(
        "Generated {{ tokens: {}, finish: Interrupted, .. }}",
        made.tokens.len()
    );
    assert_eq!(format!("{made:?}"), shown);
    let decoder = BASE.0.decoder(None).unwrap();
    let empty = generate(decoder, &BASE.1, &[], &options(1), &mut |_| {
        ControlFlow::Continue(())
    });
    assert!(matches!(
        empty,
        Err(GenerateError::Decode(DecodeError::Empty))
    ));
}
