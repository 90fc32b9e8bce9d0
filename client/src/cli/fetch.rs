//! Opening a base with the fetch from the hub shown: a bar on a terminal, plain lines elsewhere,
//! nothing with `--quiet`. All on standard error.

use std::io::IsTerminal;

use fedlora_client::base::{Base, BaseError};
use fedlora_hub::{FetchEvent, FetchProgress};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;

/// Parts of a whole after each of which a line is printed.
const LINES: u64 = 10;

/// Opens what `--base` names; what is missing is fetched before the eyes of the user.
pub(super) fn open_base(text: &str, quiet: bool) -> Result<Base, Failure> {
    find_base(text, quiet).map_err(|error| Failure::new(error.exit(), error))
}

/// As [`open_base`], where the error is one of several that are shown.
pub(super) fn find_base(text: &str, quiet: bool) -> Result<Base, BaseError> {
    let mut display = FetchDisplay::new(quiet);
    let base = Base::open_with(text, &mut display);
    display.bar.finish_and_clear();
    base
}

struct FetchDisplay {
    quiet: bool,
    terminal: bool,
    bar: ProgressBar,
    state: State,
}

impl FetchDisplay {
    fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal && !quiet {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
        )
        .expect("the template is well-formed");
        Self {
            quiet,
            terminal,
            bar: ProgressBar::with_draw_target(None, target).with_style(style),
            state: State::default(),
        }
    }
}

impl FetchProgress for FetchDisplay {
    fn event(&mut self, event: &FetchEvent) {
        let before = self.state.position;
        let line = self.state.line(event, !self.terminal);
        match event {
            FetchEvent::Planned { bytes, .. } => self.bar.set_length(*bytes),
            FetchEvent::File { file, .. } => {
                self.bar.set_message(file.clone());
                // What an earlier try left must not count as speed.
                self.bar.set_position(self.state.position);
                self.bar.reset_eta();
            }
            _ if self.state.position != before => self.bar.set_position(self.state.position),
            _ => {}
        }
        if let Some(line) = line.filter(|_| !self.quiet) {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }
}

/// How far a fetch is.
#[derive(Debug, Default)]
struct State {
    total: u64,
    /// Bytes of the files that are done.
    done: u64,
    position: u64,
    /// Parts of the whole that have been told.
    told: u64,
}

impl State {
    /// Takes an event; gives what is to be printed. Without a bar that is also how far it is.
    fn line(&mut self, event: &FetchEvent, plain: bool) -> Option<String> {
        match event {
            FetchEvent::Planned { name, files, bytes } => {
                self.total = *bytes;
                let files = match files {
                    1 => "1 file".to_owned(),
                    files => format!("{files} files"),
                };
                Some(format!("fetching {name}: {files}, {}", HumanBytes(*bytes)))
            }
            FetchEvent::File { file, start, .. } => {
                self.position = self.done + start;
                self.told = self.part();
                (*start > 0).then(|| format!("{file}: going on after {}", HumanBytes(*start)))
            }
            FetchEvent::Received { bytes } => {
                self.position += bytes;
                let part = self.part();
                if part == self.told {
                    return None;
                }
                self.told = part;
                plain.then(|| {
                    format!(
                        "  {:>3} %  {} of {}",
                        part * 100 / LINES,
                        HumanBytes(self.position),
                        HumanBytes(self.total)
                    )
                })
            }
            FetchEvent::Fetched { size, .. } => {
                self.done += size;
                self.position = self.done;
                None
            }
            FetchEvent::Retrying { why, wait } => Some(format!(
                "{why}; trying again in {:.0} s",
                wait.as_secs_f64()
            )),
            FetchEvent::Waiting { file } => {
                Some(format!("{file}: another process is fetching it; waiting"))
            }
            FetchEvent::Stale { why, commit } => Some(format!(
                "{why}; using what was fetched before, commit {commit}"
            )),
        }
    }

    fn part(&self) -> u64 {
        // In 128 bits: a hub may announce any size.
        let parts = u128::from(self.position) * u128::from(LINES);
        parts
            .checked_div(u128::from(self.total))
            .map_or(0, |part| part.min(u128::from(LINES)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(events: &[FetchEvent], plain: bool) -> Vec<String> {
        let mut state = State::default();
        events
            .iter()
            .filter_map(|event| state.line(event, plain))
            .collect()
    }

    fn two_files() -> Vec<FetchEvent> {
        let file = |file: &str, start| FetchEvent::File {
            file: file.to_owned(),
            start,
            size: 1024,
        };
        let received = FetchEvent::Received { bytes: 512 };
        let fetched = |file: &str| FetchEvent::Fetched {
            file: file.to_owned(),
            size: 1024,
        };
        vec![
            FetchEvent::Planned {
                name: "o/n".to_owned(),
                files: 2,
                bytes: 2048,
            },
            file("a", 512),
            received.clone(),
            fetched("a"),
            file("b", 0),
            received.clone(),
            received,
            fetched("b"),
        ]
    }

    #[test]
    fn plain_lines_tell_how_far_it_is() {
        assert_eq!(
            lines(&two_files(), true),
            [
                "fetching o/n: 2 files, 2.00 KiB",
                "a: going on after 512 B",
                "   50 %  1.00 KiB of 2.00 KiB",
                "   70 %  1.50 KiB of 2.00 KiB",
                "  100 %  2.00 KiB of 2.00 KiB",
            ]
        );
    }

    #[test]
    fn beside_a_bar_only_what_it_does_not_show_is_printed() {
        assert_eq!(
            lines(&two_files(), false),
            ["fetching o/n: 2 files, 2.00 KiB", "a: going on after 512 B"]
        );
    }

    #[test]
    fn a_file_that_begins_anew_or_was_here_is_counted_once() {
        let mut state = State::default();
        let mut events = two_files();
        // The store knows no ranges: `a` begins again.
        events.insert(
            3,
            FetchEvent::File {
                file: "a".to_owned(),
                start: 0,
                size: 1024,
            },
        );
        for event in &events {
            state.line(event, true);
        }
        assert_eq!(state.position, 2048);
        let mut state = State::default();
        state.line(&FetchEvent::Received { bytes: u64::MAX }, true);
        assert_eq!(state.part(), 0, "nothing was planned");
    }
}
