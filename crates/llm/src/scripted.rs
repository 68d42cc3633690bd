//! A model that plays a script instead of thinking: for the demo without a key, and for tests. What it says is a function
//! of the conversation alone, so it survives restarts and serves any number of sessions. The format is in docs/models.md.

pub mod player;
pub mod script;

/// What people see wherever such a model shows.
pub const LABEL: &str = "scripted demo model";
