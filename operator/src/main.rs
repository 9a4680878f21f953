//! The binary `jiuzhou`.

use std::process::ExitCode;

use clap::Parser as _;
use operator::args::Arguments;

/// Returns memory to the system sooner after bursts than the default allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a usage error, as in sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            // Nothing is left to do when even this cannot be said.
            let _unsaid = error.print();
            return code;
        }
    };
    rustls::crypto::ring::default_provider().install_default().expect("nothing installed one before");
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads and timers");
    match runtime.block_on(operator::commands::run(arguments.command)) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended with an error");
            eprintln!("jiuzhou: {error:#}");
            ExitCode::FAILURE
        }
    }
}
