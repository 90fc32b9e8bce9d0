//! `fedlora-aggregator`: the operator's program.

fn main() -> std::process::ExitCode {
    fedlora_aggregator::cli::main()
}
