//! The `rollcall` program; see [`rollcall::cli`].

use std::process::ExitCode;

/// Keeps memory small under many threads, and is fast.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rollcall::cli::main()
}
