//! Where a program prints: data on standard output, notes on standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::options::{Format, GlobalOptions};

/// The version of the JSON documents' form.
const SCHEMA_VERSION: u32 = 1;

/// Prints a command's data and notes as the global options ask. Clones print to the same streams.
///
/// A reader that has closed standard output (`fedlora ... | head`) is no error, and ends no
/// command. Any other error of standard output ends the program with exit code 1.
#[derive(Debug, Clone)]
pub struct Printer {
    format: Format,
    quiet: bool,
    /// The first error of standard output.
    error: Arc<OnceLock<io::Error>>,
}

impl Printer {
    /// A printer as the options ask.
    pub fn new(options: &GlobalOptions) -> Self {
        Self {
            format: options.format,
            quiet: options.quiet,
            error: Arc::default(),
        }
    }

    /// How data is printed.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether data is printed for people.
    pub fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// Whether only errors are printed on standard error.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints a command's result: `document` with `--format json`, else the lines that `text`
    /// makes.
    pub fn result<D: Display>(&self, document: &impl Serialize, text: impl FnOnce() -> D) {
        match self.format {
            Format::Json => self.document(document),
            Format::Text => self.data(&text()),
        }
    }

    /// Prints a line of data.
    pub fn data(&self, line: &impl Display) {
        self.write(|out| writeln!(out, "{line}"));
    }

    /// Prints a JSON document on a line of its own, with `schema_version` as its first key.
    pub fn document(&self, document: &impl Serialize) {
        self.stored(&Versioned {
            schema_version: SCHEMA_VERSION,
            document,
        });
    }

    /// Prints a JSON document that carries its own `schema_version`, such as one read from a file.
    pub fn stored(&self, document: &impl Serialize) {
        self.write(|out| {
            serde_json::to_writer(&mut *out, document)?;
            writeln!(out)
        });
    }

    /// Prints a line on standard error, unless `--quiet` is given.
    pub fn note(&self, line: &impl Display) {
        if !self.quiet {
            print_error(line);
        }
    }

    /// Writes to standard output at once; gives whether anybody still reads it.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> bool {
        let mut out = io::stdout().lock();
        match write(&mut out).and_then(|()| out.flush()) {
            Ok(()) => true,
            Err(error) => {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    let _ = self.error.set(error);
                }
                false
            }
        }
    }

    /// The first error of standard output, other than a closed pipe.
    pub(crate) fn error(&self) -> Option<&io::Error> {
        self.error.get()
    }
}

/// Prints a line on standard error. Nothing can be done where that is closed.
pub fn print_error(line: &impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A document with its version.
#[derive(Serialize)]
struct Versioned<'a, D> {
    schema_version: u32,
    #[serde(flatten)]
    document: &'a D,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer() -> Printer {
        Printer::new(&GlobalOptions {
            quiet: false,
            verbose: 0,
            format: Format::Json,
        })
    }

    #[test]
    fn a_document_begins_with_its_version() {
        #[derive(Serialize)]
        struct Body {
            loss: f32,
            name: &'static str,
        }
        let document = Versioned {
            schema_version: SCHEMA_VERSION,
            document: &Body {
                loss: 0.1,
                name: "a",
            },
        };
        assert_eq!(
            serde_json::to_string(&document).unwrap(),
            "{\"schema_version\":1,\"loss\":0.1,\"name\":\"a\"}"
        );
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        let printer = printer();
        let fail = |kind: io::ErrorKind| printer.write(|_| Err(kind.into()));
        assert!(!fail(io::ErrorKind::BrokenPipe));
        assert!(printer.error().is_none());
        assert!(!fail(io::ErrorKind::StorageFull));
        // A clone sees it.
        let error = printer.clone().error().map(io::Error::kind);
        assert_eq!(error, Some(io::ErrorKind::StorageFull));
    }
}
