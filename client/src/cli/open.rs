//! Opening a base model, with the fetch from the hub shown on standard error.

use std::path::Path;

use anyhow::Context;
use fedlora_adapter::{Adapter, peft};
use fedlora_data::TextPipeline;
use fedlora_hub::{FetchEvent, FetchProgress};
use fedlora_shell::{Failure, Printer, Progress, ProgressUnit};
use fedlora_train::Engine;
use indicatif::HumanBytes;

use super::args::ModelSpec;
use super::exits::{self, data};
use crate::base::{Base, BaseError};

/// Lines that tell how far a fetch is, where there is no bar.
const LINES: u64 = 10;

/// A base model on its device, with its text pipeline and an adapter that fits it.
pub(super) struct OpenedModel {
    pub(super) base: Base,
    pub(super) pipeline: TextPipeline,
    pub(super) engine: Engine,
    pub(super) adapter: Option<Adapter>,
}

/// Opens a model to be read from. The adapter comes first: a wrong one should not cost the
/// reading of the base.
pub(super) fn open_model(
    model: &ModelSpec,
    adapter: Option<&Path>,
    printer: &Printer,
) -> Result<OpenedModel, Failure> {
    let adapter = adapter
        .map(|folder| {
            peft::load(folder).with_context(|| format!("the adapter {}", folder.display()))
        })
        .transpose()
        .map_err(data)?;
    let base = open_base(&model.base, printer)?;
    let pipeline = base.text().map_err(data)?;
    let weights = base.weights().map_err(data)?;
    let engine =
        Engine::with_kind(&weights, model.kind, base.name(), &model.device).map_err(data)?;
    // Refuses an adapter of another model.
    engine.decoder(adapter.as_ref()).map_err(data)?;
    Ok(OpenedModel {
        base,
        pipeline,
        engine,
        adapter,
    })
}

/// Finds the base model that `text` names, and fetches it where it is missing.
pub(super) fn open_base(text: &str, printer: &Printer) -> Result<Base, Failure> {
    fetch_base(text, Progress::new(printer, ProgressUnit::Bytes)).map_err(exits::base)
}

/// As [`Base::open`]; `progress`, of bytes, shows a fetch from the hub.
///
/// # Errors
/// As [`Base::open`]; [`base_exit`](super::exits::base_exit) has their exit codes.
pub fn fetch_base(text: &str, progress: Progress) -> Result<Base, BaseError> {
    let mut display = FetchDisplay {
        progress,
        state: FetchState::default(),
    };
    Base::open_with(text, &mut display)
}

struct FetchDisplay {
    progress: Progress,
    state: FetchState,
}

impl FetchProgress for FetchDisplay {
    fn event(&mut self, event: &FetchEvent) {
        let before = self.state.position;
        let line = self.state.line(event, !self.progress.has_bar());
        match event {
            FetchEvent::Planned { bytes, .. } => self.progress.begin("", *bytes),
            FetchEvent::File { file, .. } => {
                self.progress.message(file.clone());
                // What an earlier try left must not count as speed.
                self.progress.resume_at(self.state.position);
            }
            _ if self.state.position != before => self.progress.set(self.state.position),
            _ => {}
        }
        if let Some(line) = line {
            self.progress.line(&line);
        }
    }
}

/// How far a fetch is.
#[derive(Debug, Default)]
struct FetchState {
    total: u64,
    /// Bytes of the files that are done.
    done: u64,
    position: u64,
    /// Tenths of the whole that a line has told of.
    told: u64,
}

impl FetchState {
    /// Takes an event; gives the line to print. `plain` adds lines on how far the fetch is.
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
                (*start > 0).then(|| format!("{file}: resuming after {}", HumanBytes(*start)))
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
        let mut state = FetchState::default();
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
                "a: resuming after 512 B",
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
            ["fetching o/n: 2 files, 2.00 KiB", "a: resuming after 512 B"]
        );
    }

    #[test]
    fn a_file_that_begins_anew_or_was_here_is_counted_once() {
        let mut state = FetchState::default();
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
        let mut state = FetchState::default();
        state.line(&FetchEvent::Received { bytes: u64::MAX }, true);
        assert_eq!(state.part(), 0, "nothing was planned");
    }
}
