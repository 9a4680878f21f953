//! How much may pass: rates as they are written, and paces as they are kept.

mod pace;
mod quota;
pub(crate) mod race;
mod share;
mod shared;

pub use pace::{Pace, Refused};
pub use quota::{Quota, QuotaError, Rate};
pub use share::Share;

pub(crate) use pace::{Claim, LAST, Stretch};
pub(crate) use shared::SharedPace;
