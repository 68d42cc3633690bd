//! The product as real processes. One file per promise.

mod bad_input;
mod crash;
mod disk;
mod entry;
mod journey;
mod script;
mod together;
mod wire_formats;
