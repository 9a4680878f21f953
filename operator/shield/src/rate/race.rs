//! Points at which another thread may come between, so that tests of races meet them on any machine.

/// Does nothing, but in a test of a race: there it lets another thread run.
#[inline]
pub(crate) fn point() {
    #[cfg(test)]
    if RACING.get() {
        std::thread::yield_now();
    }
}

#[cfg(test)]
thread_local! {
    static RACING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs this so that another thread may run at each point.
#[cfg(test)]
pub(crate) fn race<T>(run: impl FnOnce() -> T) -> T {
    RACING.set(true);
    let result = run();
    RACING.set(false);
    result
}
