//! One session after another, until the run ends or trying again cannot help.

use std::time::Duration;

use fedlora_protocol::round::member::RunOutcome;
use fedlora_protocol::wire::session::Purpose;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::info;

use super::Participant;
use super::events::MemberEvent;
use super::link::{Connector, MemberLink};
use super::outcome::{ParticipantError, declined, is_hopeless, is_replaced};
use super::shell::{Report, Shell};

/// The pause before the first attempt to reconnect; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A connection that lasted as long was one, also where nothing was said.
const STEADY: Duration = Duration::from_secs(20);

/// How often to see whether the aggregator should hear that this member is at work.
const TICK: Duration = Duration::from_millis(500);

/// Takes part until the run ends.
pub(super) async fn run<C: Connector>(
    participant: Participant<C>,
) -> Result<RunOutcome, ParticipantError> {
    let (sender, mut reports) = mpsc::unbounded_channel();
    let Participant {
        connector,
        patience,
        ..
    } = participant;
    let mut shell = Shell::new(participant.parts, sender);
    let mut pause = FIRST_PAUSE;
    let mut lost = Instant::now();
    loop {
        let purpose = Purpose::TakePart { run: shell.run() };
        let broken = match connector.open(purpose).await {
            Ok(mut link) => {
                shell.watch(MemberEvent::Connected {
                    address: connector.address().to_owned(),
                    route: link.route().clone(),
                });
                let (opened, heard) = (Instant::now(), shell.heard());
                let ended = session(&mut shell, &mut link, &mut reports).await;
                // One that is let in and dropped at once has not reached the aggregator.
                let lasted = shell.heard() > heard || opened.elapsed() >= STEADY;
                if lasted {
                    pause = FIRST_PAUSE;
                }
                shell.add_traffic(link.traffic());
                match ended {
                    Err(ParticipantError::Link(error)) => {
                        if lasted {
                            lost = Instant::now();
                        }
                        error
                    }
                    ended => {
                        match ended.as_ref().err().and_then(declined) {
                            Some(reason) => link.decline(&reason).await,
                            None => link.finish().await,
                        }
                        return ended;
                    }
                }
            }
            Err(error) => error,
        };
        if is_replaced(&broken) {
            tell_of_copy(&connector).await;
        }
        if is_hopeless(&broken) || lost.elapsed() > patience {
            return Err(broken.into());
        }
        shell.watch(MemberEvent::Disconnected {
            reason: broken.to_string(),
        });
        info!(error = %broken, "not connected; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Tells the operator that another process takes part with this member's keys, over a connection that takes
/// nobody's place. One that cannot be told may find out by its own log.
async fn tell_of_copy<C: Connector>(connector: &C) {
    if let Ok(link) = connector.open(Purpose::Watch).await {
        let reason = "another process has connected with this member's keys, and this one ends";
        link.decline(reason).await;
    }
}

/// Follows the protocol until the run ends or the session breaks.
async fn session<L: MemberLink>(
    shell: &mut Shell,
    link: &mut L,
    reports: &mut mpsc::UnboundedReceiver<Report>,
) -> Result<RunOutcome, ParticipantError> {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ended = tokio::select! {
            _ = tick.tick() => {
                shell.show_progress(link).await?;
                None
            }
            message = link.receive() => shell.on_message(link, message?).await?,
            // The shell holds a sender: there is always a next report to wait for.
            Some(report) = reports.recv() => shell.on_report(link, report).await?,
        };
        if let Some(outcome) = ended {
            return Ok(outcome);
        }
    }
}
