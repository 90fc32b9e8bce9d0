//! `fedlora-aggregator`: the operator's program.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
