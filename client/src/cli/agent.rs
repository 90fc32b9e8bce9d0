//! `fedlora agent`: waits for runs, and takes part where the member's rules or its user say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::RosterSheet;
use fedlora_protocol::round::member::{MemberError, RosterQuestion};
use fedlora_shell::{Failure, Printer, Stop, print_error};

use super::exits;
use super::run::{Agreed, Left, Part, PartArgs, take_part};
use crate::agent::{AcceptedRun, Agent, AgentError, AgentNote, AgentPhase};
use crate::directory::MemberDirectory;
use crate::federation::{ExpectedRun, NetworkConnector, ParticipantError, RosterConsent};
use crate::receipts;

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
                    return exits::directory(error);
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
    let outcome = match accepted.longest {
        None => taking_part.await,
        Some(longest) => match tokio::time::timeout(longest, taking_part).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let hours = longest.as_secs() / 3600;
                let error = anyhow!("the run takes longer than agent.max_hours, {hours}: left");
                directory
                    .end_run(accepted.run, "left: it took too long")
                    .map_err(exits::directory)?;
                Err(Failure::new(Exit::Failed, error).into())
            }
        },
    };
    over.store(true, Ordering::Relaxed);
    outcome
}

/// The run that this member was in when its agent stopped.
fn left_open(directory: &MemberDirectory) -> Option<AcceptedRun> {
    let newest = receipts::folders(&directory.runs()).ok()?.pop()?;
    let run: RunId = newest.file_name()?.to_str()?.parse().ok()?;
    if directory.is_over(run) {
        return None;
    }
    let plan = receipts::verify(&newest).ok()?.verified.plan;
    let rules = directory.read_config().ok()?.agent;
    Some(AcceptedRun {
        run,
        digest: plan.digest(),
        longest: rules.longest_run(),
    })
}

/// Whether the run is over for this member: trying again would lead to the same.
fn is_over(left: &Left) -> bool {
    let Left::Run(error) = left else { return false };
    matches!(
        error,
        ParticipantError::OtherRun { .. }
            | ParticipantError::Member(
                MemberError::Failed { .. } | MemberError::NoResult | MemberError::Refused { .. }
            )
    )
}

fn failure(error: AgentError) -> Failure {
    match error {
        AgentError::Link(error) => exits::participant(ParticipantError::Link(error)),
        AgentError::Plan(_) => Failure::new(Exit::Integrity, error),
        AgentError::Files(_) => Failure::new(Exit::Failed, error),
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
