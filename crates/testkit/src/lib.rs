//! Stand-ins for the world outside Greenroom, and what looks after tests; nothing here is linked into a product binary.

pub mod leftovers;
pub mod model_server;
pub mod oci;
