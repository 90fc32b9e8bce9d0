//! `fedlora-aggregator`: the operator's program.

fn main() -> std::process::ExitCode {
    fedlora_shell::run_main::<fedlora_aggregator::cli::Cli>()
}
