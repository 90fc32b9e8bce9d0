//! What a member sees while it takes part: a progress bar on a terminal, plain lines elsewhere.
//! All on standard error.

use std::io::IsTerminal;

use fedlora_client::federation::MemberEvent;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

/// Whether standard error takes colour.
pub(super) fn colour() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The display.
pub(super) struct Display {
    quiet: bool,
    terminal: bool,
    bar: ProgressBar,
}

impl Display {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal && !quiet {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}")
            .expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(None, target).with_style(style);
        Self {
            quiet,
            terminal,
            bar,
        }
    }

    /// Shows events until there are no more.
    pub(super) async fn show(self, mut events: mpsc::UnboundedReceiver<MemberEvent>) {
        while let Some(event) = events.recv().await {
            self.one(&event);
        }
        self.bar.finish_and_clear();
    }

    fn one(&self, event: &MemberEvent) {
        match event {
            MemberEvent::Connected { address } => self.line(&format!("connected to {address}")),
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
                self.bar.set_prefix(format!("round {round}"));
                self.bar.set_length(progress.steps as u64);
                self.bar.set_position(progress.step as u64);
                self.bar.set_message(format!("loss {:.3}", progress.loss));
            }
            MemberEvent::Trained { round, report } => {
                let clipped = if report.clipped { ", clipped" } else { "" };
                let held_out = report
                    .eval_loss
                    .map(|loss| format!(", held-out loss before {loss:.4}"))
                    .unwrap_or_default();
                self.line(&format!(
                    "round {round}: trained, loss {:.4}{held_out}, delta norm {:.3}{clipped}",
                    report.train_loss, report.delta_norm
                ));
            }
            MemberEvent::Left { round, reason } => {
                self.line(&format!("left round {round}: {reason}"));
            }
            MemberEvent::RoundDone(report) => {
                let part = if report.took_part {
                    ""
                } else {
                    ", without this member"
                };
                self.line(&format!(
                    "round {} done: {} members in the sum{part}, {} sent, {} received",
                    report.round,
                    report.survivors,
                    indicatif::HumanBytes(report.traffic.sent),
                    indicatif::HumanBytes(report.traffic.received),
                ));
            }
        }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        if self.terminal {
            self.bar.suspend(|| eprintln!("{text}"));
        } else {
            eprintln!("{text}");
        }
    }
}
