//! The command line of `fedlora-sim`: from the options to the exit code.

use fedlora_aggregator::cli::exits::serve_exit;
use fedlora_client::cli::exits::participant_exit;
use fedlora_common::exit::Exit;
use fedlora_shell::{DocumentsCommand, Failure, Format, GlobalOptions, LogLevels, Program, Shell};

use super::options::Options;
use super::run::{SimulationError, run};
use super::table::render;

impl Program for Options {
    const LOG_LEVELS: LogLevels = LogLevels {
        quiet: "off",
        // Dropped members and refusals are part of the simulation: its progress shows them.
        verbosity: &["error", "info", "debug"],
        others: "error",
    };
    const WORKER_THREADS: usize = 4;

    fn shell_options(&self) -> (&GlobalOptions, Option<&DocumentsCommand>) {
        (&self.global, self.documents.as_ref())
    }

    async fn run(self, Shell { printer, .. }: Shell) -> Result<(), Failure> {
        let document = run(&self).await.map_err(failure)?;
        match printer.format() {
            Format::Json => printer.document(&document),
            Format::Text => printer.data(&render(&document).trim_end()),
        }
        Ok(())
    }
}

fn failure(error: SimulationError) -> Failure {
    let exit = match &error {
        SimulationError::Usage(_) | SimulationError::Occupied { .. } => Exit::Usage,
        SimulationError::Data(_) | SimulationError::Model(_) | SimulationError::Train(_) => {
            Exit::Data
        }
        SimulationError::Plan(_) => Exit::Configuration,
        SimulationError::Serve(error) => serve_exit(error),
        SimulationError::Member { source, .. } => participant_exit(source),
        SimulationError::Sum => Exit::Integrity,
        SimulationError::Other(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_an_example() {
        let command = fedlora_shell::command::<Options>();
        command.clone().debug_assert();
        assert!(fedlora_shell::without_example(&command).is_empty());
    }
}
