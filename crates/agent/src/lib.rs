//! The agent: one turn from a prompt to its end. It reaches the world only through the traits in [`world`].

mod answer;
mod call_run;
mod context;
pub mod driver;
pub mod fake;
mod history;
mod kept_images;
mod model;
pub mod picture;
pub mod tools;
mod turn;
pub mod world;
