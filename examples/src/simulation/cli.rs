//! A simulation as a command: runs it, prints its outcome, and gives a failure its exit code.

use fedlora_aggregator::cli::exits::serve_exit;
use fedlora_client::cli::exits::{base_exit, participant_exit};
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer};

use super::compare;
use super::options::Options;
use super::report::Document;
use super::run::{SimulationError, run};
use super::table::{render, render_comparison};

/// Runs a simulation and prints its outcome.
pub(crate) async fn simulate(options: &Options, printer: &Printer) -> Result<(), Failure> {
    if compare::are_several(options) {
        let print = |document: &Document| print_json(document, options, printer);
        let documents = compare::run_all(options, print).await.map_err(failure)?;
        if printer.is_text() {
            printer.data(&render_comparison(&documents));
        }
        return Ok(());
    }
    let single = compare::single(options).map_err(failure)?;
    // Beside the command itself, which is to hear of an interruption while this computes.
    let running = tokio::spawn(async move { run(&single).await });
    let document = running
        .await
        .map_err(|panic| SimulationError::Other(panic.into()));
    let document = document.and_then(|outcome| outcome).map_err(failure)?;
    print_json(&document, options, printer);
    if printer.is_text() {
        printer.data(&render(&document).trim_end());
    }
    Ok(())
}

/// Prints a document where JSON is asked for.
fn print_json(document: &Document, options: &Options, printer: &Printer) {
    if printer.is_text() {
        return;
    }
    match document.value(options.no_timings) {
        Ok(value) => printer.document(&value),
        Err(error) => printer.note(&error),
    }
}

fn failure(error: SimulationError) -> Failure {
    let exit = match &error {
        SimulationError::Usage(_)
        | SimulationError::Occupied { .. }
        | SimulationError::Busy { .. } => Exit::Usage,
        SimulationError::Data(_)
        | SimulationError::Model(_)
        | SimulationError::Train(_)
        | SimulationError::Update(_) => Exit::Data,
        SimulationError::Base(error) => base_exit(error),
        SimulationError::Plan(_) | SimulationError::PlanFile(_) => Exit::Configuration,
        SimulationError::Serve(error) => serve_exit(error),
        SimulationError::Member { source, .. } => participant_exit(source),
        SimulationError::Sum => Exit::Integrity,
        SimulationError::Other(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}
