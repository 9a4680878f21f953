//! How races are checked: by every order in which threads may run and memory may be seen.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p shield --lib --target-dir target/loom models

/// A thread is interrupted so often at most. Every fence and order that was taken away showed at this bound, and all
/// models end within a second; what needs more interruptions to go wrong is not found.
const INTERRUPTIONS: usize = 3;

/// Runs this in every order.
pub(crate) fn check(run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(INTERRUPTIONS);
    model.check(run);
}
