//! The plan, tried on a simulated province.

mod province;

mod check;
mod contents;
mod division;
mod filters;
mod fleet;
mod gate;
mod moves;
mod properties;
mod purity;
mod removal;
mod slices;
mod statuses;
mod waves;
