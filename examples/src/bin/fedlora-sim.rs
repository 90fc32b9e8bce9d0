//! `fedlora-sim`: a whole federation on one machine.

use std::process::ExitCode;

use clap::Parser;
use fedlora_common::exit::Exit;
use fedlora_examples::simulation::{self, Format, Options};
use tracing_subscriber::EnvFilter;

/// The system's allocator costs the training a tenth of its speed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            let _ = error.print();
            return exit.into();
        }
    };
    start_logging(&options);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = simulation::run(&options) => outcome.map_err(|error| {
                (error.exit(), error.to_string())
            }),
            _ = tokio::signal::ctrl_c() => Err((Exit::Interrupted, "interrupted".into())),
        }
    });
    runtime.shutdown_background();
    match outcome {
        Ok(document) => {
            match options.format {
                Format::Text => print!("{}", simulation::render(&document)),
                Format::Json => println!(
                    "{}",
                    serde_json::to_string(&document).expect("documents have text keys")
                ),
            }
            Exit::Done.into()
        }
        Err((exit, message)) => {
            eprintln!("error: {message}");
            exit.into()
        }
    }
}

fn start_logging(options: &Options) {
    let level = match (options.quiet, options.verbose) {
        (true, _) => "off",
        // Dropped members and refusals are part of the simulation: its progress shows them.
        (false, 0) => "error",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = EnvFilter::new(format!(
        "error,fedlora_aggregator={level},fedlora_client={level},fedlora_common={level}"
    ));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
