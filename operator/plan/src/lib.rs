//! Decides the whole province in one pure function.
//!
//! [`plan`] takes a [`World`], a validated snapshot of everything that is known, and returns a
//! [`Plan`], which names every write down to the last field, and a [`PlanReport`], which says for
//! every object what was decided and why. [`realize`] is its counterpart in a member cluster.
//!
//! **Invariant**: nothing in this crate does I/O, reads a clock or draws a random number. Time and
//! settings are fields of the world. `clippy.toml` bans the calls, a test the dependencies.

pub mod allotment;
pub mod amount;
mod apportion;
pub mod baseline;
mod charge;
pub mod check;
pub mod content;
pub mod held;
pub mod object;
pub mod pack;
pub mod province;
pub mod quota;
pub mod reach;
pub mod realize;
pub mod render;
pub mod report;
pub mod world;

pub use check::check;
pub use province::{Plan, Planner, plan};
pub use report::PlanReport;
pub use world::World;
