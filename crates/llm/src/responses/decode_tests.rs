//! Cases of `responses::decode`.
