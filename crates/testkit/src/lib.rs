//! Stand-ins for the world outside Greenroom, for tests only: nothing here is linked into a product binary.

pub mod model_server;
