//! Errors as text.

use std::error::Error;
use std::iter::successors;

/// An error and its causes in one line, for logs at a place that goes on and pauses: a reference to
/// the error itself could not be held across the pause.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = successors(error.source(), |cause: &&(dyn Error + 'static)| {
        (*cause).source()
    });
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
