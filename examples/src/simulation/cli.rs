//! A simulation as a command: runs it, prints its outcome, and gives a failure its exit code.

use fedlora_aggregator::cli::exits::serve_exit;
use fedlora_client::cli::exits::{base_exit, participant_exit};
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer};

use super::options::Options;
use super::run::{SimulationError, run};
use super::table::render;

/// Runs a simulation and prints its outcome.
pub(crate) async fn simulate(options: &Options, printer: &Printer) -> Result<(), Failure> {
    let document = run(options).await.map_err(failure)?;
    printer.result(&document, || render(&document).trim_end().to_owned());
    Ok(())
}

fn failure(error: SimulationError) -> Failure {
    let exit = match &error {
        SimulationError::Usage(_) | SimulationError::Occupied { .. } => Exit::Usage,
        SimulationError::Data(_)
        | SimulationError::Model(_)
        | SimulationError::Train(_)
        | SimulationError::Update(_) => Exit::Data,
        SimulationError::Base(error) => base_exit(error),
        SimulationError::Plan(_) => Exit::Configuration,
        SimulationError::Serve(error) => serve_exit(error),
        SimulationError::Member { source, .. } => participant_exit(source),
        SimulationError::Sum => Exit::Integrity,
        SimulationError::Other(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}
