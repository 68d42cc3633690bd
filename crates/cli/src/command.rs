//! One module per command. Each takes what was typed, talks to a server, and prints; none of them exits.

pub mod backup;
pub mod config;
pub mod environment;
pub mod generate;
pub mod image;
pub mod models;
pub mod person;
pub mod pull_request;
pub mod repository;
pub mod run;
pub mod sample;
pub mod secret;
pub mod session;
pub mod sign_in_link;
pub mod up;

mod diff;
mod export;
mod follow;
mod input;
mod member;
mod queue;
mod shell;
mod table;
