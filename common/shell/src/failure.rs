//! How a command fails: what is wrong, the exit code, and what would help.

use std::fmt;

use fedlora_common::exit::Exit;

/// The end of a command that did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    exit: Exit,
    hint: Option<String>,
}

impl Failure {
    /// An error with the exit code of its kind.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            exit,
            hint: None,
        }
    }

    /// The same failure with a hint: what the user can do, in an imperative sentence. It may name
    /// flags, and is printed on a line of its own.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// [`Failure::with_hint`] where there is a hint.
    #[must_use]
    pub fn with_hint_if(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.with_hint(hint),
            None => self,
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The error with its causes, on one line. What a cause repeats of the text before it, as a whole
    /// or at its beginning, is said once.
    pub fn message(&self) -> String {
        let mut said = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            let new = without_repetition(&said, &cause);
            if !new.is_empty() {
                said.push_str(": ");
                said.push_str(new);
            }
        }
        said
    }
}

/// What a cause adds to what was said: a file that both name is named by the first.
fn without_repetition<'a>(said: &str, cause: &'a str) -> &'a str {
    let mut new = cause;
    loop {
        if said.contains(new) {
            return "";
        }
        match new.split_once(": ") {
            Some((clause, rest)) if said.ends_with(clause) || is_long(clause, said) => new = rest,
            _ => return new,
        }
    }
}

/// Whether a clause is too long to be in a text by chance, and is in it.
fn is_long(clause: &str, said: &str) -> bool {
    clause.len() >= 20 && said.contains(clause)
}

/// `error: ...`, and `hint: ...` on a second line where there is a hint.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message())?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = || anyhow::anyhow!("the disk is full");
        let message = |error: anyhow::Error| Failure::new(Exit::Failed, error).message();
        assert_eq!(
            message(cause().context("no room")),
            "no room: the disk is full"
        );
        let both = "no room: the disk is full, sadly";
        assert_eq!(message(cause().context(both)), both);
        let named =
            |context: &'static str| message(anyhow::anyhow!("a/b: not whole").context(context));
        assert_eq!(named("the base a/b"), "the base a/b: not whole");
        assert_eq!(named("a/b: not whole"), "a/b: not whole");
        assert_eq!(named("other"), "other: a/b: not whole");
        assert_eq!(named("a/bc"), "a/bc: a/b: not whole");
    }

    #[test]
    fn error_and_hint_are_two_lines() {
        let failure = || Failure::new(Exit::Data, anyhow::anyhow!("the folder is not empty"));
        assert_eq!(failure().to_string(), "error: the folder is not empty");
        assert_eq!(
            failure().with_hint_if(None).to_string(),
            failure().to_string(),
            "no hint, no line"
        );
        let hinted = failure().with_hint("use another --out");
        assert_eq!(
            hinted.to_string(),
            "error: the folder is not empty\nhint: use another --out"
        );
        assert_eq!(hinted.exit(), Exit::Data);
    }
}
