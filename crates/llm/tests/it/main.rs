//! The crate from outside: its clients against real sockets, the vendors' own schemas, and other people's programs.

mod aimock;
mod client;
mod demo;
mod peers;
mod rig;
mod schemas;
mod talk;
