//! Waiting rooms as citizens meet them.

mod crowd;
mod fleet;
mod launch;
mod order;
mod replays;
mod step;
mod tickets;
