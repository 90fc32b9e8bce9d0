//! Shows a roster that the member has not accepted, and asks on a terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use fedlora_protocol::plan::RosterSheet;
use fedlora_protocol::round::member::RosterQuestion;
use fedlora_shell::Printer;

use crate::federation::RosterConsent;

/// Asks on standard error, and reads the answer from standard input. Without a terminal on both,
/// it shows the roster and refuses.
#[derive(Debug)]
pub(super) struct TerminalConsent {
    /// Whether nothing is shown where nobody can answer.
    quiet: bool,
}

impl TerminalConsent {
    pub(super) fn new(printer: &Printer) -> Self {
        Self {
            quiet: printer.is_quiet(),
        }
    }
}

impl RosterConsent for TerminalConsent {
    fn ask(&self, question: &RosterQuestion) -> bool {
        let can_answer = io::stdin().is_terminal() && io::stderr().is_terminal();
        if can_answer || !self.quiet {
            show(question);
        }
        can_answer && read_answer(&mut io::stdin().lock(), &mut io::stderr())
    }
}

/// Shows names, fingerprints, digest and words, and what changed.
fn show(question: &RosterQuestion) {
    let what = match &question.change {
        None => "this member has not accepted a roster yet; the aggregator shows:".to_owned(),
        Some(change) => format!("the roster has changed ({change}); the aggregator shows:"),
    };
    let sheet = RosterSheet::of(&question.roster);
    // Nothing can be done where standard error is closed.
    let _ = writeln!(io::stderr(), "{what}\n{sheet}");
}

/// Asks until there is a yes or a no. The end of the input is a no.
fn read_answer(input: &mut impl BufRead, out: &mut impl Write) -> bool {
    loop {
        let asked = write!(
            out,
            "Do all members see these words, and know each other? Accept (yes/no): "
        );
        let mut line = String::new();
        if asked.and_then(|()| out.flush()).is_err()
            || !matches!(input.read_line(&mut line), Ok(1..))
        {
            return false;
        }
        match line.trim() {
            "yes" => return true,
            "no" => return false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(typed: &str) -> (bool, usize) {
        let mut shown = Vec::new();
        let accepted = read_answer(&mut typed.as_bytes(), &mut shown);
        let shown = String::from_utf8(shown).unwrap();
        (accepted, shown.matches("yes/no").count())
    }

    #[test]
    fn only_a_whole_yes_accepts() {
        assert_eq!(answer("yes\n"), (true, 1));
        assert_eq!(answer("no\n"), (false, 1));
        // Asked again, until there is a yes or a no.
        assert_eq!(answer("y\n\nyes\n"), (true, 3));
        assert_eq!(answer("y\n"), (false, 2));
        assert_eq!(answer(""), (false, 1));
    }
}
