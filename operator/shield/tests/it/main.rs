//! Tests of the whole crate: what it may depend on, and how its parts fare together and under load.

mod overload;
mod overload_queue;
mod overload_several;
mod overload_sim;
mod overload_table;
mod purity;
mod room;
