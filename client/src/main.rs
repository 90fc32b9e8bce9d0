//! `fedlora`: a consortium member's program.

mod cli;

/// The system's allocator costs the training a tenth of its speed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
