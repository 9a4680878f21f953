//! The plan, tried on a simulated province.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what helps tests may fail as tests may; clippy knows only the tests themselves"
)]

mod province;

mod check;
mod contents;
mod division;
mod emergency;
mod explain;
mod filters;
mod fleet;
mod gate;
mod isolation;
mod ledger_size;
mod ledgers;
mod links;
mod moves;
mod properties;
mod protection;
mod purity;
mod quota;
mod quotas;
mod reach;
mod reclaim;
mod removal;
mod slices;
mod statuses;
mod surroundings;
mod tenants;
mod waves;
mod worked;
