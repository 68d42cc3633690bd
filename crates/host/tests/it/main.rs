//! Sandboxes through the host's public API, with real processes: each scenario as root (where the tests run as root) and as
//! an ordinary user.

mod files;
mod hostile;
mod isolation;
mod lifecycle;
mod programs;
mod routes;
mod world;
