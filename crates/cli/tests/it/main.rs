//! The built program as people and scripts use it, without a server of ours: help, configuration, errors, outputs.

mod client;
mod configuration;
mod interface;
mod program;
