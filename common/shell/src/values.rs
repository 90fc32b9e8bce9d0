//! Parsers of option values. What they refuse ends the program with exit code 2, and clap names
//! the option.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

/// A count of at least 1.
///
/// # Errors
/// What was expected, as clap prints it behind the option and the value.
pub fn positive(text: &str) -> Result<usize, String> {
    non_zero(text).map(NonZeroUsize::get)
}

/// [`positive`], as the type that says so.
///
/// # Errors
/// What would do.
pub fn non_zero(text: &str) -> Result<NonZeroUsize, String> {
    at_least(1, text).map(|count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN))
}

/// Tokens of an example: at least 2, one to predict and one before it.
///
/// # Errors
/// What was expected, as clap prints it behind the option and the value.
pub fn sequence_length(text: &str) -> Result<usize, String> {
    at_least(2, text)
}

/// An address to listen on.
///
/// # Errors
/// What was expected, as clap prints it behind the option and the value.
pub fn listening(text: &str) -> Result<SocketAddr, String> {
    let wanted = "give an IP address and a port: 0.0.0.0:4433, or [::]:4433";
    text.parse().map_err(|_| wanted.to_owned())
}

fn at_least(least: usize, text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if value >= least => Ok(value),
        _ => Err(format!("give a whole number of at least {least}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_below_their_least_and_other_text_are_refused() {
        assert_eq!(positive("1"), Ok(1));
        assert_eq!(sequence_length("2"), Ok(2));
        for bad in ["0", "-1", "", "1.5", "many"] {
            assert!(positive(bad).is_err(), "{bad:?}");
        }
        assert!(sequence_length("1").unwrap_err().contains("at least 2"));
        assert!(listening("[::1]:1").is_ok());
        for bad in ["127.0.0.1", "localhost:1", "1", ""] {
            assert!(
                listening(bad).unwrap_err().contains("and a port"),
                "{bad:?}"
            );
        }
    }
}
