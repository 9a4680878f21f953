//! How many files and connections the process may have open at one time.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets the process have as many as the system allows it, and returns how many that is; none is no bound.
///
/// The usual limit of 1,024 is for the sake of programs that ask the system by `select`, which this is not.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files (RLIMIT_NOFILE) was not raised");
            limit.current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_may_have_as_many_as_the_system_allows() {
        let most = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise(), most);
        assert_eq!(getrlimit(Resource::Nofile).current, most);
    }
}
