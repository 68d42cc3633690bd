//! OpenAI Chat Completions (<https://platform.openai.com/docs/api-reference/chat-streaming>) and the servers that speak it.

pub(crate) mod decode;
pub(crate) mod encode;
