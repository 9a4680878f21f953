//! The serving guard between real clients and real endpoints, on loopback.

mod attacks;
mod changes;
mod passing;
mod protecting;
mod support;
mod tls;
