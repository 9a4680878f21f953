//! The binary `jiuzhou`.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use operator::args::Arguments;

/// Returns memory to the system sooner after bursts than the default allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a usage error, as in sysexits.h.
const USAGE: u8 = 64;

/// The name people typed: as `kubectl-jiuzhou` on PATH the binary is a plugin of kubectl.
fn called_as() -> &'static str {
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    let plugin = name
        .as_ref()
        .and_then(|n| n.file_name())
        .is_some_and(|n| n.to_string_lossy().starts_with("kubectl-"));
    if plugin { "kubectl jiuzhou" } else { "jiuzhou" }
}

/// Whether a reader such as `head` had enough, which is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn main() -> ExitCode {
    // A page of 2 MiB stays whole for one object that lives in it: at rest they were most of what a
    // process held. Where the system does not know the wish, it only costs memory.
    #[cfg(target_os = "linux")]
    let _kept = rustix::thread::disable_transparent_huge_pages(true);
    let parsed = Arguments::command()
        .bin_name(called_as())
        .try_get_matches()
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
            // Nothing is left to do when even this cannot be said.
            let _unsaid = error.print();
            return code;
        }
    };
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing installed one before");
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads and timers");
    match runtime.block_on(operator::commands::run(arguments.command)) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended with an error");
            eprintln!("jiuzhou: {error:#}");
            ExitCode::FAILURE
        }
    }
}
