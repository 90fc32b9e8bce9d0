//! `fedlora plan`: the plan that waits for this member's answer.

use std::path::PathBuf;

use anyhow::anyhow;
use fedlora_common::digest::Digest;
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
    /// Take part in its run: of exactly the plan with this digest.
    #[command(
        after_help = "Example:\n  fedlora plan approve 9bc3068c1b48b0b6faa6e280c5e773225b846c74620c69ed73361da1dfeb0e48 \\\n    --dir ~/fedlora"
    )]
    Approve(ApproveArgs),
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

/// Options of `fedlora plan approve`.
#[derive(Debug, clap::Args)]
pub(super) struct ApproveArgs {
    /// The plan's digest, as `plan show` prints it.
    plan: Digest,
    #[command(flatten)]
    directory: PlanArgs,
}

/// Runs the command.
pub(super) fn run(command: &PlanCommand, printer: &Printer) -> Result<(), Failure> {
    let (PlanCommand::Show(args)
    | PlanCommand::Approve(ApproveArgs {
        directory: args, ..
    })
    | PlanCommand::Refuse(args)) = command;
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
        // The aggregator may show another one at any time.
        PlanCommand::Approve(approve) if approve.plan != pending.digest => Err(Failure::new(
            Exit::Failed,
            anyhow!("another plan waits for an answer: {}", pending.digest),
        )
        .with_hint("look at it with `fedlora plan show` first")),
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
            None => "waits for your answer: `fedlora plan approve DIGEST` or `fedlora plan refuse`",
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
