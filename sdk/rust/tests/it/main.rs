//! The client against a small server that misbehaves on purpose.

mod calls;
mod server;
mod streams;
