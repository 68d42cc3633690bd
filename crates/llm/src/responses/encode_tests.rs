//! Cases of `responses::encode`.
