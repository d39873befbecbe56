//! The program `what_if`: the guide's page "What if" tells how to use it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tower_keep::replay::run(std::env::args().skip(1))
}
