//! A status in words: the line that `serve` and `watch` print, and the page of `status`.

use std::fmt::Write as _;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use time::OffsetDateTime;

use super::{MemberStatus, RunState, StageStatus, Status};

/// How many names a line lists at most.
const MAX_NAMES: usize = 8;

impl Status {
    /// What the run waits for at `now`, on one line without its end.
    pub fn summary(&self, now: Timestamp) -> String {
        let mut line = match (&self.stage, self.state) {
            (Some(stage), RunState::Gathering | RunState::Running) if self.failure.is_none() => {
                self.waiting(stage, now)
            }
            _ => self.standing(),
        };
        if self.bytes_received > 0 {
            let _ = write!(line, "; {} received", bytes(self.bytes_received));
        }
        for member in &self.members {
            if let Some(problem) = &member.problem {
                let _ = write!(line, "; {}: {problem}", member.name);
            }
        }
        line
    }

    /// The state in words.
    pub fn standing(&self) -> String {
        let round = self.rounds_done + 1;
        match self.state {
            RunState::Gathering | RunState::Running if self.failure.is_some() => format!(
                "stands still: {}; trying again",
                self.failure.as_deref().unwrap_or_default()
            ),
            RunState::Gathering => "waiting for members".to_owned(),
            RunState::Running => match &self.phase {
                Some(phase) => format!("round {round}{}, {phase}", self.attempt_in_words()),
                None => "between rounds".to_owned(),
            },
            RunState::Stopped => match &self.phase {
                Some(phase) => format!(
                    "stopped in round {round}, {phase}: nothing serves it since {}; the same \
                     `serve` goes on with it",
                    moment(self.updated)
                ),
                None => format!("stopped: nothing serves it since {}", moment(self.updated)),
            },
            RunState::Finished if self.stopped_early => {
                "finished early: the pooled validation loss no longer improved".to_owned()
            }
            RunState::Finished => "finished".to_owned(),
            RunState::Failed => format!(
                "failed: {}",
                self.failure.as_deref().unwrap_or("no reason is known")
            ),
        }
    }

    fn attempt_in_words(&self) -> String {
        match self.attempt {
            Some(attempt) => format!(", attempt {attempt}"),
            None => String::new(),
        }
    }

    fn waiting(&self, stage: &StageStatus, now: Timestamp) -> String {
        let StageStatus {
            ready,
            awaited,
            needed,
            ..
        } = stage;
        let (what, done) = match stage.name.as_str() {
            "gathering" => ("waiting for members".to_owned(), "ready"),
            "consent" => (
                "waiting for members to accept the roster".to_owned(),
                "accepted",
            ),
            "returning" => ("waiting for members to come back".to_owned(), "back"),
            _ => (self.standing(), "answered"),
        };
        let mut line = format!(
            "{what}, for {}: {} of {needed} {done}",
            span(stage.since.until(now)),
            ready.len()
        );
        if !ready.is_empty() {
            let _ = write!(line, " ({})", names(ready));
        }
        if !awaited.is_empty() {
            let _ = write!(line, "; awaited: {}", names(awaited));
        }
        let missing = needed.saturating_sub(ready.len() + awaited.len());
        if missing > 0 && stage.name == "gathering" {
            let _ = write!(line, "; {missing} more must join");
        }
        let _ = write!(line, "; {} left", span(now.until(stage.until)));
        line
    }

    /// The whole status at `now`, for people.
    pub fn page(&self, now: Timestamp) -> String {
        let mut lines = vec![
            format!("federation   {}", self.federation),
            format!("run          {}", self.run),
            format!("state        {}", self.standing()),
            format!(
                "rounds       {} of {}",
                self.rounds_done, self.rounds_planned
            ),
        ];
        if let (Some(stage), RunState::Gathering | RunState::Running) = (&self.stage, self.state) {
            lines.push(format!("stage        {}", self.waiting(stage, now)));
        }
        match self.best_round {
            Some(0) => {
                lines.push("result       the first adapter, by the pooled losses".to_owned())
            }
            Some(round) if round < self.rounds_done => lines.push(format!(
                "result       the adapter of round {round}, by the pooled losses"
            )),
            _ => {}
        }
        if self.rounds_scaled > 0 {
            lines.push(format!(
                "scaled       the steps of {} rounds, down to the plan's largest",
                self.rounds_scaled
            ));
        }
        if self.rounds_taken_back > 0 {
            lines.push(format!(
                "taken back   {} of the steps, by the votes of most members",
                self.rounds_taken_back
            ));
        }
        if self.bytes_received + self.bytes_sent > 0 {
            lines.push(format!(
                "traffic      {} received, {} sent",
                bytes(self.bytes_received),
                bytes(self.bytes_sent)
            ));
        }
        lines.extend(self.members.iter().map(|member| member.line(now)));
        lines.push(match self.state {
            RunState::Stopped => format!("written      {}", moment(self.updated)),
            _ => format!(
                "written      {}, {} ago",
                moment(self.updated),
                span(self.updated.until(now))
            ),
        });
        lines.join("\n")
    }
}

impl MemberStatus {
    fn line(&self, now: Timestamp) -> String {
        let link = match (self.connected, self.transport) {
            (true, Some(transport)) => format!("over {transport}"),
            (true, None) => "connected".to_owned(),
            (false, _) => "away".to_owned(),
        };
        let mut line = format!(
            "member       {:<24} {link:<10} in {} rounds",
            self.name, self.rounds
        );
        if let Some(release) = &self.release {
            let _ = write!(line, ", release {release}");
        }
        if let Some(seen) = self.last_seen {
            let _ = write!(line, ", last seen {} ago", span(seen.until(now)));
        }
        if let Some(end) = self.certificate_end {
            let _ = write!(line, ", certificate until {}", day(end));
        }
        if let Some(problem) = &self.problem {
            let _ = write!(line, ": {problem}");
        }
        line
    }
}

/// Names on one line; of many the first.
fn names(members: &[MemberName]) -> String {
    let shown: Vec<_> = members
        .iter()
        .take(MAX_NAMES)
        .map(MemberName::as_str)
        .collect();
    match members.len() - shown.len() {
        0 => shown.join(", "),
        others => format!("{} and {others} others", shown.join(", ")),
    }
}

/// A stretch of time, in seconds up to ten minutes.
pub(crate) fn span(stretch: Duration) -> String {
    let seconds = stretch.as_secs();
    match seconds {
        0..600 => format!("{seconds} s"),
        600..36_000 => format!("{} min", seconds / 60),
        36_000..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes in decimal units.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

fn utc(time: Timestamp) -> OffsetDateTime {
    let seconds = i64::try_from(time.0 / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A day in UTC: 2026-01-31.
pub(crate) fn day(time: Timestamp) -> String {
    utc(time).date().to_string()
}

/// A point in time in UTC, to the second: 2026-01-31 09:05:00 UTC.
pub(crate) fn moment(time: Timestamp) -> String {
    let at = utc(time);
    format!(
        "{} {:02}:{:02}:{:02} UTC",
        at.date(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

#[cfg(test)]
mod tests;
