//! OpenAI Responses (<https://platform.openai.com/docs/api-reference/responses-streaming>): request body and event stream.

pub(crate) mod decode;
pub(crate) mod encode;
