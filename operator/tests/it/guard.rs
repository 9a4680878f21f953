//! The serving guard between real clients and real endpoints, on loopback.

mod attacks;
mod changes;
mod cluster;
mod control;
mod endings;
mod files;
mod floods;
mod holding_up;
mod keys;
mod messages;
mod observed;
mod outlier;
mod passing;
mod protecting;
mod retries;
mod slow_clients;
mod support;
mod tls;
mod upgrades;
mod waiting;
