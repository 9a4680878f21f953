//! How races are checked: by every order in which threads may run and memory may be seen.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p shield --lib --target-dir target/loom models

/// A thread is interrupted so often at most: what needs more to go wrong was not found in years of such checks,
/// and each one more takes ten times as long.
const INTERRUPTIONS: usize = 3;

/// Runs this in every order.
pub(crate) fn check(run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(INTERRUPTIONS);
    model.check(run);
}
