//! The binary as people and pipelines meet it, and the order of the house.

#![expect(
    clippy::unwrap_used,
    reason = "helpers fail as the tests do that call them; clippy exempts only the latter"
)]

mod cli;
mod guard;
mod tidy;
