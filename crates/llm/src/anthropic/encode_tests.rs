//! Cases of `anthropic::encode`.
