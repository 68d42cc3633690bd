//! Anthropic Messages (<https://docs.anthropic.com/en/api/messages-streaming>): request body and event stream.

pub(crate) mod decode;
pub(crate) mod encode;
