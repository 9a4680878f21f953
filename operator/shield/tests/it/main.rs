//! Tests of the whole crate: what it may depend on.

mod purity;
