//! The generated CRDs: in step with their YAML, in good taste, and with examples that hold.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy allows both in tests, but not in their helpers"
)]

mod examples;
mod generated;
mod taste;
