//! The `portcullis` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    firewall_user::cli::main()
}
