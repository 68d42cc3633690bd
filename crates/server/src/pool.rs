//! The warm pool: sandboxes that were started, brought to the newest commit and checked before anybody asked. A session's first turn
//! takes one if there is one that fits; all others start as ever.
//!
//! [`demand`] says how many are wanted, [`book`] who has which, [`keeper`] starts, checks and ends them. Nothing of it outlives the
//! server: what a crash leaves is removed at the next start.

mod book;
mod demand;
mod keeper;
mod routes;

pub use book::{Kind, Reservation};
pub use keeper::{Claimed, WarmPool, keep};
