//! A secret that a person types.

use std::io::{self, IsTerminal};

use zeroize::Zeroizing;

/// Asks on the terminal for a secret, and shows nothing of what is typed. Gives nothing where standard
/// input is not a terminal: nobody is there to be asked, even where the process has one.
///
/// # Errors
/// The system's error for the terminal; [`io::ErrorKind::Interrupted`] for ctrl-c.
pub fn ask_secret(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    rpassword::prompt_password(format!("{question}: ")).map(|typed| Some(Zeroizing::new(typed)))
}
