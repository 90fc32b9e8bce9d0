//! What a member sees while it takes part in a run, on standard error.

use fedlora_shell::{Printer, Progress, ProgressUnit, Stop};
use indicatif::HumanBytes;
use tokio::sync::mpsc;

use crate::federation::MemberEvent;
use crate::personal::HomeProgress;

/// A bar for the training, and a line for each event.
pub(super) struct Display {
    progress: Progress,
    /// The round that the bar shows.
    round: Option<u32>,
    /// Hears what an interruption means.
    stop: Stop,
}

impl Display {
    pub(super) fn new(printer: &Printer, stop: Stop) -> Self {
        Self {
            progress: Progress::new(printer, ProgressUnit::Items),
            round: None,
            stop,
        }
    }

    /// Shows events until there are no more.
    pub(super) async fn show(mut self, mut events: mpsc::UnboundedReceiver<MemberEvent>) {
        while let Some(event) = events.recv().await {
            self.one(&event);
        }
        self.progress.finish();
    }

    fn one(&mut self, event: &MemberEvent) {
        if let Some(ended) = interrupted_after(event) {
            self.stop.say(ended);
        }
        match event {
            MemberEvent::Connected { address, route } => {
                self.line(&format!("connected to {address} over {route}"));
            }
            MemberEvent::Disconnected { reason } => {
                self.line(&format!("not connected: {reason}; trying again"));
            }
            MemberEvent::Planned {
                run,
                rounds,
                steps,
                max_tokens,
                cut,
            } => {
                self.line(&format!("run {run}: {rounds} rounds of {steps} steps"));
                if *cut > 0 {
                    self.line(&format!("  {cut} examples are cut at {max_tokens} tokens"));
                }
            }
            MemberEvent::Roster { members, digest } => {
                self.line(&format!("roster {digest}"));
                for (name, fingerprint) in members {
                    self.line(&format!("  {name:<24} {fingerprint}"));
                }
            }
            MemberEvent::Opened { round, attempt } => {
                self.line(&format!("round {round}, attempt {attempt}"));
            }
            MemberEvent::Training { round, progress } => {
                if self.round != Some(round.0) {
                    self.round = Some(round.0);
                    let label = format!("round {round}");
                    self.progress.begin(&label, progress.steps as u64);
                }
                self.progress.set(progress.step as u64);
                self.progress.message(format!("loss {:.3}", progress.loss));
            }
            MemberEvent::Trained { round, report } => {
                let clipped = if report.clipped { ", clipped" } else { "" };
                let vote = match report.worse {
                    true => "; votes to take the last step back",
                    false => "",
                };
                let validation = report
                    .validation_loss
                    .map(|loss| format!(", validation loss before {loss:.4}"))
                    .unwrap_or_default();
                self.line(&format!(
                    "round {round}: trained, loss {:.4}{validation}, delta norm {:.3}{clipped}{vote}",
                    report.train_loss, report.delta_norm
                ));
            }
            MemberEvent::Uploaded { round } => {
                self.line(&format!(
                    "round {round}: the update is stored at the aggregator"
                ));
            }
            MemberEvent::Waiting { so_far, what } => {
                let seconds = so_far.as_secs();
                let so_far = match seconds {
                    0 => String::new(),
                    seconds => format!(" ({seconds} s)"),
                };
                self.line(&format!("{what}{so_far}"));
            }
            MemberEvent::Abandoned {
                round,
                attempt,
                reason,
            } => {
                self.line(&format!(
                    "round {round}, attempt {attempt} failed: {reason}"
                ));
            }
            MemberEvent::CopySeen => self.line(
                "warning: another process has connected with this member's keys, and was put out by \
                 this one: a copy of its directory may be in use. Stop one of the two; where you know \
                 of no other, ask the operator for other keys (`re-key`)",
            ),
            MemberEvent::Left { round, reason } => {
                self.line(&format!("left round {round}: {reason}"));
            }
            MemberEvent::RoundDone(report) => {
                let part = if report.took_part {
                    ""
                } else {
                    ", this member not among them"
                };
                let back = match report.taken_back {
                    true => "; most found the last step harmful: it is taken back",
                    false => "",
                };
                self.line(&format!(
                    "round {} done: {} members in the sum{part}, {} sent, {} received{back}",
                    report.round,
                    report.survivors,
                    HumanBytes(report.traffic.sent),
                    HumanBytes(report.traffic.received),
                ));
            }
        }
    }

    fn line(&self, text: &str) {
        self.progress.line(&text);
    }
}

/// What an interruption means to this member once this has happened; nothing where it means the same
/// as before.
fn interrupted_after(event: &MemberEvent) -> Option<String> {
    const AGAIN: &str = "start this member again to take part in the next";
    match event {
        MemberEvent::Opened { round, .. } => Some(format!(
            "interrupted: this member is out of round {round}; {AGAIN}"
        )),
        MemberEvent::Uploaded { round } => Some(format!(
            "interrupted: your update of round {round} counts; the others end the round; {AGAIN}"
        )),
        MemberEvent::RoundDone(report) if report.took_part => Some(format!(
            "interrupted: your update of round {} counts; {AGAIN}",
            report.round
        )),
        MemberEvent::RoundDone(report) => Some(format!(
            "interrupted: this member was not in round {}; {AGAIN}",
            report.round
        )),
        MemberEvent::Abandoned { round, .. } | MemberEvent::Left { round, .. } => Some(format!(
            "interrupted: this member is not in round {round}; {AGAIN}"
        )),
        MemberEvent::Connected { .. }
        | MemberEvent::Disconnected { .. }
        | MemberEvent::Planned { .. }
        | MemberEvent::Roster { .. }
        | MemberEvent::Training { .. }
        | MemberEvent::Trained { .. }
        | MemberEvent::CopySeen
        | MemberEvent::Waiting { .. } => None,
    }
}

/// A bar for what a member trains after the last round.
pub(super) struct HomeBar(Progress);

impl HomeBar {
    pub(super) fn new(printer: &Printer) -> Self {
        Self(Progress::new(printer, ProgressUnit::Items))
    }

    /// Shows a step. Each training, one of another length too, begins with its first.
    pub(super) fn show(&self, progress: HomeProgress) {
        let (label, step) = match progress {
            HomeProgress::AtHome(step) => ("training at home", step),
            HomeProgress::Alone(step) => ("training alone, to compare", step),
        };
        if step.step == 1 {
            self.0.begin(label, step.steps as u64);
            if !self.0.has_bar() {
                self.0.line(&format!("{label}: {} steps", step.steps));
            }
        }
        self.0.set(step.step as u64);
        self.0.message(format!("loss {:.3}", step.loss));
    }

    pub(super) fn finish(&self) {
        self.0.finish();
    }
}

#[cfg(test)]
mod tests {
    use fedlora_protocol::ids::{Attempt, RoundNumber};
    use fedlora_transport::{Route, TransportKind};

    use super::*;

    #[test]
    fn an_interruption_says_whether_the_update_counts() {
        let round = RoundNumber(3);
        let said = |event| interrupted_after(&event).expect("it means something else");
        let opened = said(MemberEvent::Opened {
            round,
            attempt: Attempt(1),
        });
        assert!(opened.contains("out of round 3"), "{opened}");
        let uploaded = said(MemberEvent::Uploaded { round });
        assert!(
            uploaded.contains("your update of round 3 counts;"),
            "{uploaded}"
        );
        assert!(!uploaded.contains("out of"), "{uploaded}");
        let abandoned = said(MemberEvent::Abandoned {
            round,
            attempt: Attempt(1),
            reason: String::new(),
        });
        assert!(!abandoned.contains("counts"), "{abandoned}");
        let address = "there".to_owned();
        let connected = MemberEvent::Connected {
            address,
            route: Route::direct(TransportKind::Quic),
        };
        assert_eq!(interrupted_after(&connected), None);
    }
}
