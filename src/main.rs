//! The `agentspool` program: parse, run, return the exit code; nothing else.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
