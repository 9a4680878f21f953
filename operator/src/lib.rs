//! The operator: hub, agent and command line of Jiuzhou.

pub mod agent;
pub mod args;
pub mod cli;
pub mod commands;
pub mod guard;
pub mod hub;
pub mod runtime;
