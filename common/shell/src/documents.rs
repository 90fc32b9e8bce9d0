//! Commands that print something about a program's own command line: shell completions, manual
//! pages, the reference.

use std::path::PathBuf;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell as CompletionShell;
use fedlora_common::exit::Exit;

use crate::failure::Failure;
use crate::printer::Printer;
use crate::reference::reference;

/// Commands that every program has.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum DocumentsCommand {
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  source <(PROGRAM completions bash)")]
    Completions {
        /// The shell that will read the script.
        shell: CompletionShell,
    },
    /// Write a manual page for each command into a folder.
    #[command(
        hide = true,
        after_help = "Example:\n  PROGRAM man ~/.local/share/man/man1"
    )]
    Man {
        /// The folder, made where it is missing.
        dir: PathBuf,
    },
    /// Print a reference of all commands and options, as Markdown.
    #[command(hide = true, after_help = "Example:\n  PROGRAM reference > PROGRAM.md")]
    Reference,
}

impl DocumentsCommand {
    /// Prints or writes what is asked for about `command`, a whole program.
    pub(crate) fn run(&self, mut command: Command, printer: &Printer) -> Result<(), Failure> {
        let name = command.get_name().to_owned();
        match self {
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut command, name, &mut script);
                printer.write(|out| out.write_all(&script));
            }
            Self::Man { dir } => std::fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(command, dir))
                .with_context(|| format!("cannot write manual pages into {}", dir.display()))
                .map_err(|error| Failure::new(Exit::Failed, error))?,
            Self::Reference => {
                let text = reference(command);
                printer.write(|out| out.write_all(text.as_bytes()));
            }
        }
        Ok(())
    }
}
