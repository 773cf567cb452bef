//! The `portcullis` binary.

use std::process::ExitCode;

/// Why not the system's, ARCHITECTURE.md tells.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    firewall_user::cli::main()
}
