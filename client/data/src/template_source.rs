//! A template's source before it is compiled: the `generation` tags become a scope, and the
//! operators `%` and `~`, which the engine computes otherwise than Python, become calls. Lines
//! stay where they are, so that an error's line is the template's.

/// The function that stands for `%`.
pub(super) const PERCENT: &str = "__percent";
/// The function that stands for `~`.
pub(super) const CONCATENATE: &str = "__concatenate";

/// The filter that marks what stands between the `generation` tags.
pub(super) const GENERATION: &str = "__generation";

/// The source that the engine compiles. `{% generation %}` marks the assistant's text; as in
/// Transformers, what is set inside stays inside.
pub(super) fn prepared(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = opening(rest) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        if rest.starts_with("{#") {
            let end = rest.find("#}").map_or(rest.len(), |at| at + 2);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let closing = if rest.starts_with("{%") { "%}" } else { "}}" };
        let inner = 2 + usize::from(rest[2..].starts_with(['-', '+']));
        let Some((mut tokens, length)) = tokens(&rest[inner..], closing) else {
            break;
        };
        out.push_str(&rest[..inner]);
        rest = &rest[inner + length..];
        let first = tokens.iter().position(|token| !is_space(token));
        match first.map(|at| tokens[at].as_str()) {
            Some("raw") if closing == "%}" => {
                out.push_str(&tokens.concat());
                let end = rest.find("endraw").unwrap_or(rest.len());
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                let end = rest.find("%}").unwrap_or(rest.len());
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            Some("generation") if closing == "%}" => {
                replace(
                    &mut tokens,
                    first,
                    &format!("with %}}{{% filter {GENERATION}"),
                );
            }
            Some("endgeneration") if closing == "%}" => {
                replace(&mut tokens, first, "endfilter %}{% endwith");
            }
            _ => {
                call_instead(&mut tokens, "%", PERCENT);
                call_instead(&mut tokens, "~", CONCATENATE);
            }
        }
        out.push_str(&tokens.concat());
    }
    out.push_str(rest);
    out
}

/// Where the next comment, block or expression begins.
fn opening(source: &str) -> Option<usize> {
    source
        .match_indices('{')
        .map(|(at, _)| at)
        .find(|at| source[at + 1..].starts_with(['{', '%', '#']))
}

fn replace(tokens: &mut [String], at: Option<usize>, word: &str) {
    if let Some(token) = at.and_then(|at| tokens.get_mut(at)) {
        *token = word.to_owned();
    }
}

/// The tokens up to the closing tag and their length in bytes; `None` where it never closes.
fn tokens(source: &str, closing: &str) -> Option<(Vec<String>, usize)> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut depth = 0_usize;
    loop {
        let rest = &source[at..];
        let sign = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        if depth == 0 && (rest.starts_with(closing) || sign.starts_with(closing)) {
            return Some((tokens, at));
        }
        let length = token_length(rest)?;
        match &rest[..length] {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        tokens.push(rest[..length].to_owned());
        at += length;
    }
}

/// The length of the first token in bytes; `None` at the end and in an open string.
fn token_length(source: &str) -> Option<usize> {
    let first = source.chars().next()?;
    let run = |belongs: fn(char) -> bool| source.find(|c| !belongs(c)).unwrap_or(source.len());
    Some(match first {
        '\'' | '"' => {
            let mut escaped = false;
            let end = source[1..].find(|c| {
                let ends = c == first && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            })?;
            end + 2
        }
        c if c.is_whitespace() => run(char::is_whitespace),
        c if c.is_ascii_digit() => number_length(source),
        c if is_word(c) => run(is_word),
        c => ["**", "//", "==", "!=", "<=", ">="]
            .into_iter()
            .find(|operator| source.starts_with(operator))
            .map_or(c.len_utf8(), str::len),
    })
}

/// Digits, a fraction and an exponent: `1.5e-3`.
fn number_length(source: &str) -> usize {
    let run = |from: usize| {
        source[from..]
            .find(|c| !is_word(c))
            .map_or(source.len(), |at| from + at)
    };
    let digit = |at: usize| source[at..].starts_with(|c: char| c.is_ascii_digit());
    let mut end = run(0);
    if source[end..].starts_with('.') && digit(end + 1) {
        end = run(end + 1);
    }
    if source[..end].ends_with(['e', 'E'])
        && source[end..].starts_with(['-', '+'])
        && digit(end + 1)
    {
        end = run(end + 1);
    }
    end
}

/// Replaces each use of a binary operator by a call with its operands.
fn call_instead(tokens: &mut Vec<String>, operator: &str, function: &str) {
    while let Some(at) = tokens.iter().position(|token| token == operator) {
        let start = operand_start(tokens, at, operator);
        let mut end = operand_end(tokens, at, operator);
        ",".clone_into(&mut tokens[at]);
        // A chain becomes one call: nested ones would meet the engine's limit of nesting.
        while operator == "~" && tokens.get(end).is_some_and(|token| token == operator) {
            ",".clone_into(&mut tokens[end]);
            end = operand_end(tokens, end, operator);
        }
        tokens.insert(end, ")".to_owned());
        tokens.insert(start, format!("{function}("));
        // The bracket is a token of its own, for the next search.
        function.clone_into(&mut tokens[start]);
        tokens.insert(start + 1, "(".to_owned());
    }
}

/// The first token of the left operand.
fn operand_start(tokens: &[String], operator_at: usize, operator: &str) -> usize {
    let mut depth = 0_usize;
    let mut start = operator_at;
    for at in (0..operator_at).rev() {
        match tokens[at].as_str() {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" if depth == 0 => break,
            "(" | "[" | "{" => depth -= 1,
            _ if depth > 0 => {}
            _ if ends_operand(tokens, at, operator) => break,
            _ => {}
        }
        if !is_space(&tokens[at]) {
            start = at;
        }
    }
    start
}

/// The token after the right operand.
fn operand_end(tokens: &[String], operator_at: usize, operator: &str) -> usize {
    let mut depth = 0_usize;
    for at in operator_at + 1..tokens.len() {
        match tokens[at].as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return at,
            ")" | "]" | "}" => depth -= 1,
            _ if depth > 0 => {}
            "*" | "/" | "//" | "%" if operator == "%" => return at,
            token if token == operator => return at,
            _ if ends_operand(tokens, at, operator) => return at,
            _ => {}
        }
    }
    tokens.len()
}

/// Whether the token binds less than the operator, or is no part of an expression at all.
fn ends_operand(tokens: &[String], at: usize, operator: &str) -> bool {
    let before = tokens[..at].iter().rev().find(|token| !is_space(token));
    match tokens[at].as_str() {
        "+" | "-" => !before.is_none_or(|token| expects_operand(token)),
        "~" => operator == "%",
        "not" => before.is_none_or(|token| token != "is"),
        "==" | "!=" | "<" | "<=" | ">" | ">=" | "=" | "," | ":" => true,
        word => is_keyword(word) && before.is_none_or(|token| token != "."),
    }
}

/// Whether a sign after this token is a number's and not an operator.
fn expects_operand(token: &str) -> bool {
    matches!(token, "(" | "[" | "{" | "." | "|")
        || is_keyword(token)
        || !token.starts_with(|c| is_word(c) || matches!(c, ')' | ']' | '}' | '\'' | '"'))
}

fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "and"
            | "or"
            | "not"
            | "in"
            | "if"
            | "elif"
            | "else"
            | "for"
            | "recursive"
            | "set"
            | "print"
            | "do"
            | "call"
            | "with"
            | "include"
            | "import"
            | "filter"
    )
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_space(token: &str) -> bool {
    token.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::prepared;

    #[test]
    fn operators_become_calls_with_the_operands_that_python_gives_them() {
        let cases = [
            ("{{ a % b }}", "{{ __percent(a , b )}}"),
            ("{{ a * b % c + 1 }}", "{{ __percent(a * b , c )+ 1 }}"),
            (
                "{{- '%' ~ -1 ~ x|f('~') -}}",
                "{{- __concatenate('%' , -1 , x|f('~') )-}}",
            ),
            ("{% if i % 2 == 0 %}", "{% if __percent(i , 2 )== 0 %}"),
            (
                "{{ f(a ~ b, c % d % e) }}",
                "{{ f(__concatenate(a , b), __percent(__percent(c , d ), e)) }}",
            ),
            (
                "{# a % b #}{% raw %}{{ a % b }}{% endraw %}",
                "{# a % b #}{% raw %}{{ a % b }}{% endraw %}",
            ),
            (
                "{%- generation -%}x{% endgeneration %}",
                "{%- with %}{% filter __generation -%}x{% endfilter %}{% endwith %}",
            ),
            ("{% set x = '%}' %}{{ x", "{% set x = '%}' %}{{ x"),
        ];
        for (source, expected) in cases {
            assert_eq!(prepared(source), expected);
        }
    }
}
