//! The warm pool: sandboxes that were started, brought to the newest commit and checked before anybody asked. A session's first turn
//! takes one if there is one that fits; all others start as ever.
//!
//! [`demand`] says how many are wanted, [`book`] who has which, [`keeper`] starts, checks and ends them, [`borrow`] gives them for other use than sessions. Nothing of it outlives the
//! server: what a crash leaves is removed at the next start.

mod book;
mod borrow;
mod demand;
mod keeper;
mod routes;

pub use book::{Kind, Reservation};
pub use borrow::Borrowed;
pub use keeper::{Claimed, WarmPool, keep};
