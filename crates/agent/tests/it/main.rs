//! The agent through its public API.

mod driver;
mod tools;
