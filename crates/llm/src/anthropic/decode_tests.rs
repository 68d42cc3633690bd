//! Cases of `anthropic::decode`.
