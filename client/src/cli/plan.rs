//! `fedlora plan`: the plan that waits for this member's answer.

use std::path::PathBuf;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer};
use serde_json::json;

use super::exits;
use crate::agent::{AgentFiles, Decision, PendingPlan};
use crate::directory::MemberDirectory;

/// `fedlora plan` and its commands.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PlanCommand {
    /// Show the plan that waits.
    #[command(after_help = "Example:\n  fedlora plan show --dir ~/fedlora")]
    Show(PlanArgs),
    /// Take part in its run.
    #[command(after_help = "Example:\n  fedlora plan approve --dir ~/fedlora")]
    Approve(PlanArgs),
    /// Take no part in its run.
    #[command(after_help = "Example:\n  fedlora plan refuse --dir ~/fedlora")]
    Refuse(PlanArgs),
}

/// Options of `fedlora plan`'s commands.
#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    /// The member's directory, made by `fedlora join`.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Runs the command.
pub(super) fn run(command: &PlanCommand, printer: &Printer) -> Result<(), Failure> {
    let (PlanCommand::Show(args) | PlanCommand::Approve(args) | PlanCommand::Refuse(args)) =
        command;
    let (directory, _) = MemberDirectory::open(&args.dir).map_err(exits::directory)?;
    let files = directory.agent();
    let pending = files.pending().map_err(failed)?;
    let Some(pending) = pending else {
        return Err(
            Failure::new(Exit::Failed, anyhow!("no plan waits for an answer"))
                .with_hint("`fedlora agent` shows each plan that its rules leave to you"),
        );
    };
    match command {
        PlanCommand::Show(_) => show(&files, &pending, printer),
        PlanCommand::Approve(_) => answer(&files, &pending, true, printer),
        PlanCommand::Refuse(_) => answer(&files, &pending, false, printer),
    }
}

fn show(files: &AgentFiles, pending: &PendingPlan, printer: &Printer) -> Result<(), Failure> {
    let decision = files.decision().map_err(failed)?;
    let decision = decision.filter(|one| one.run == pending.run && one.digest == pending.digest);
    let approved = decision.map(|decision| decision.approved);
    let document = json!({
        "run": pending.run,
        "digest": pending.digest,
        "approved": approved,
        "plan": pending.plan,
    });
    printer.result(&document, || {
        let plan = &pending.plan;
        let state = match approved {
            None => "waits for your answer",
            Some(true) => "approved",
            Some(false) => "refused",
        };
        let text = toml::to_string_pretty(plan).unwrap_or_else(|error| error.to_string());
        format!(
            "run          {}\nplan         {}\nstate        {state}\n\
             members      {}\nrounds       {}\nsteps        {} in rounds, {} at home\n\n{text}",
            pending.run,
            pending.digest,
            plan.members,
            plan.rounds,
            plan.steps(),
            plan.home_steps(),
        )
    });
    Ok(())
}

fn answer(
    files: &AgentFiles,
    pending: &PendingPlan,
    approved: bool,
    printer: &Printer,
) -> Result<(), Failure> {
    let decision = Decision {
        run: pending.run.clone(),
        digest: pending.digest,
        approved,
    };
    files.decide(&decision).map_err(failed)?;
    printer.result(&decision, || {
        let what = if approved { "approved" } else { "refused" };
        format!("run {} {what}", pending.run)
    });
    Ok(())
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, error)
}
