//! `fedlora agent`: waits for runs, and takes part where the member's rules or its user say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_protocol::plan::RosterSheet;
use fedlora_protocol::round::member::RosterQuestion;
use fedlora_shell::{Failure, Printer, Stop, print_error};

use super::exits;
use super::run::{Agreed, Left, Part, PartArgs, take_part};
use crate::agent::{AcceptedRun, Agent, AgentError, AgentNote, AgentPhase, left_open};
use crate::directory::MemberDirectory;
use crate::federation::{ExpectedRun, NetworkConnector, ParticipantError, RosterConsent};

/// How long a run that has begun is held on to while the aggregator cannot be reached.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often to see whether the program is to stop, and whether a roster was accepted.
const TICK: Duration = Duration::from_millis(200);

/// Options of `fedlora agent`.
#[derive(Debug, clap::Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    part: PartArgs,
}

/// Runs the command until it is told to stop.
pub(super) async fn run(args: AgentArgs, printer: &Printer, stop: Stop) -> Result<(), Failure> {
    let part = args.part.resolve()?;
    let (directory, mut membership) = MemberDirectory::open(&part.dir).map_err(exits::directory)?;
    let _lock = directory.lock().map_err(exits::directory)?;
    let aggregator = membership.config.aggregator;
    let proxy = part.transport.apply(&mut membership, printer)?;
    let connector = NetworkConnector::of(membership).with_proxy(proxy);
    let agent = Agent::new(connector, aggregator, directory.clone());
    // A run goes on from where it was the next time.
    stop.heed();
    let stopped = async {
        while !stop.asked() {
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::select! {
        () = stopped => Ok(()),
        failed = serve(agent, &directory, &part, (printer, &stop)) => Err(failed),
    }
}

/// Takes part in one run after the other, for ever.
async fn serve(
    mut agent: Agent<NetworkConnector>,
    directory: &MemberDirectory,
    part: &Part,
    (printer, stop): (&Printer, &Stop),
) -> Failure {
    let mut next = left_open(directory);
    loop {
        let accepted = match next.take() {
            Some(open) => open,
            None => {
                let mut note = |note: &AgentNote| printer.note(&words(note));
                match agent.next_run(&mut note).await {
                    Ok(accepted) => accepted,
                    Err(error) => return failure(error),
                }
            }
        };
        let run = accepted.run;
        agent.set_state(AgentPhase::TakingPart, Some(run), None);
        let left = match one_run(&accepted, directory, part, (printer, stop)).await {
            Ok(()) => {
                agent.set_state(AgentPhase::Waiting, None, None);
                continue;
            }
            Err(left) => left,
        };
        let over = is_over(&left);
        let failed = left.failure();
        print_error(&failed);
        match over {
            true => {
                if let Err(error) = directory.end_run(run, &failed.to_string()) {
                    print_error(&exits::directory(error));
                    agent.retry_later(run, failed.to_string());
                }
            }
            false => agent.retry_later(run, failed.to_string()),
        }
    }
}

/// Takes part in one run, for as long as that may take.
async fn one_run(
    accepted: &AcceptedRun,
    directory: &MemberDirectory,
    part: &Part,
    (printer, stop): (&Printer, &Stop),
) -> Result<(), Left> {
    let over = Arc::new(AtomicBool::new(false));
    let consent = AgentConsent {
        directory: directory.clone(),
        over: Arc::clone(&over),
        quiet: printer.is_quiet(),
    };
    let agreed = Agreed {
        run: Some(ExpectedRun {
            run: accepted.run,
            plan: accepted.digest,
        }),
        roster: None,
        consent: Some(Arc::new(consent)),
        patience: PATIENCE,
    };
    let taking_part = take_part(part, agreed, printer, stop.clone());
    // From its beginning: what broke off in between counts as well.
    let left = accepted.longest.map(|longest| {
        let so_far = directory
            .begun(accepted.run)
            .and_then(|begun| begun.elapsed().ok());
        (longest, longest.saturating_sub(so_far.unwrap_or_default()))
    });
    let outcome = match left {
        None => taking_part.await,
        Some((longest, left)) => match tokio::time::timeout(left, taking_part).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let hours = longest.as_secs() / 3600;
                let error = anyhow!("the run takes longer than agent.max_hours, {hours}: left");
                let ended = directory.end_run(accepted.run, "left: it took too long");
                ended.map_err(exits::directory)?;
                Err(Failure::new(Exit::Failed, error).into())
            }
        },
    };
    over.store(true, Ordering::Relaxed);
    outcome
}

/// Whether the run is over for this member: trying again would lead to the same.
fn is_over(left: &Left) -> bool {
    match left {
        Left::Run(error) => error.ends_run(),
        Left::Failed(_) => false,
    }
}

fn failure(error: AgentError) -> Failure {
    match error {
        AgentError::Link(error) => exits::participant(ParticipantError::Link(error)),
        AgentError::Plan(_) => Failure::new(Exit::Integrity, error),
    }
}

fn words(note: &AgentNote) -> String {
    match note {
        AgentNote::Unreachable { reason } => {
            format!("the aggregator cannot be reached: {reason}; trying again")
        }
        AgentNote::Waiting { address } => format!("connected to {address}; waiting for a run"),
        AgentNote::Rules { error } => format!("not taking part until this is mended: {error}"),
        AgentNote::Asking { run } => format!(
            "run {run}: a plan waits for your answer: `fedlora plan show`, then `fedlora plan \
             approve` or `fedlora plan refuse`"
        ),
        AgentNote::Declined { run } => format!("run {run}: you have refused its plan"),
        AgentNote::Refused { run, refusal } => format!("run {run}: not taking part: {refusal}"),
        AgentNote::Later { run, hours } => {
            format!("run {run}: waiting; runs begin at {hours} UTC (agent.hours)")
        }
    }
}

/// Shows a roster that was not accepted, and waits until its user has accepted it by a command, or
/// the run is over.
#[derive(Debug)]
struct AgentConsent {
    directory: MemberDirectory,
    over: Arc<AtomicBool>,
    quiet: bool,
}

impl RosterConsent for AgentConsent {
    fn ask(&self, question: &RosterQuestion) -> bool {
        let digest = question.roster.digest();
        if !self.quiet {
            let what = match &question.change {
                None => "this member has not accepted a roster yet".to_owned(),
                Some(change) => format!("the roster has changed ({change})"),
            };
            let sheet = RosterSheet::of(&question.roster);
            eprintln!(
                "{what}; the aggregator shows:\n{sheet}\nwaiting: compare it, then \
                 `fedlora roster --accept {digest}`"
            );
        }
        while !self.over.load(Ordering::Relaxed) {
            let known = self.directory.roster_pin(None).known();
            let accepted = known.ok().and_then(|known| known.accepted);
            if accepted.is_some_and(|roster| roster.digest() == digest) {
                return true;
            }
            std::thread::sleep(TICK);
        }
        false
    }
}
