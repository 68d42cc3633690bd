//! The agent: one turn from a prompt to its end. It reaches the world only through the traits in [`world`].

mod model;
pub mod tools;
pub mod world;
