//! What a provider says when it refuses, as a [`ModelFailure`]: HTTP statuses with their bodies, and errors inside a
//! stream. Pure. Quotes the provider; whoever calls redacts credentials.

use crate::failure::{FailureKind, ModelFailure};
use serde_json::Value;

/// Characters of a provider's message that are quoted.
const MAX_QUOTE: usize = 600;

/// A status of 300 or more with the (bounded) body.
pub(crate) fn from_status(status: u16, body: &str, model: &str) -> ModelFailure {
    let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    // Some servers wrap the error in a list.
    let json = match json {
        Value::Array(mut list) if !list.is_empty() => list.swap_remove(0),
        other => other,
    };
    let quote = message_of(&json).or_else(|| plain_text(body));
    let word = word_of(&json);
    let kind = kind_of_status(status, &word, quote.as_deref().unwrap_or_default());
    let what = match kind {
        FailureKind::Unauthorized => "the provider refuses the API key".to_owned(),
        FailureKind::RateLimited => "the provider limits our rate or has no credit left".to_owned(),
        FailureKind::Overloaded => "the provider has trouble".to_owned(),
        FailureKind::TimedOut => "the provider gave up waiting".to_owned(),
        FailureKind::ContextTooLong => "the conversation is longer than the model takes".to_owned(),
        _ if status == 404 => {
            format!("the provider does not know the model `{model}` or the address is wrong")
        }
        _ if (300..400).contains(&status) => "the address redirects, which is not followed".to_owned(),
        _ => "the provider refuses the request".to_owned(),
    };
    let message = match quote {
        Some(quote) => format!("{what} (status {status}): {}", shorten(&quote)),
        None => format!("{what} (status {status})"),
    };
    ModelFailure::new(kind, message)
}

/// The `error` object of an event.
pub(crate) fn in_stream(error: &Value) -> ModelFailure {
    let word = word_of(error);
    let quote = message_of(error).unwrap_or_default();
    let status = error["code"].as_u64().or_else(|| error["status"].as_u64());
    let kind = kind_of_word(&word, &quote).unwrap_or_else(|| {
        let status = status
            .and_then(|status| u16::try_from(status).ok())
            .unwrap_or(500);
        kind_of_status(status, &word, &quote)
    });
    let quote = if quote.is_empty() { word } else { quote };
    let message = if quote.is_empty() {
        "the provider reports an error in the middle of the answer".to_owned()
    } else {
        format!(
            "the provider reports an error in the middle of the answer: {}",
            shorten(&quote)
        )
    };
    ModelFailure::new(kind, message)
}

/// Whether waiting does not help although the kind says so: an account without credit answers 429 for ever.
pub(crate) fn is_final(failure: &ModelFailure) -> bool {
    let message = failure.message.to_ascii_lowercase();
    failure.kind == FailureKind::RateLimited
        && [
            "insufficient_quota",
            "exceeded your current quota",
            "credit balance",
            "billing",
        ]
        .iter()
        .any(|word| message.contains(word))
}

fn kind_of_status(status: u16, word: &str, message: &str) -> FailureKind {
    match (status, kind_of_word(word, message)) {
        (401 | 403, _) => FailureKind::Unauthorized,
        (402 | 429, _) => FailureKind::RateLimited,
        (408, _) => FailureKind::TimedOut,
        (413, _) => FailureKind::ContextTooLong,
        (500.., _) => FailureKind::Overloaded,
        (_, Some(kind)) => kind,
        _ => FailureKind::InvalidRequest,
    }
}

fn kind_of_word(word: &str, message: &str) -> Option<FailureKind> {
    if is_context_too_long(word, message) {
        return Some(FailureKind::ContextTooLong);
    }
    let kind = match word {
        "overloaded_error" | "api_error" | "server_error" | "internal_server_error" | "overloaded" => {
            FailureKind::Overloaded
        }
        "timeout_error" => FailureKind::TimedOut,
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" | "billing_error" => {
            FailureKind::RateLimited
        }
        "authentication_error" | "permission_error" | "invalid_api_key" => FailureKind::Unauthorized,
        "invalid_request_error" | "not_found_error" | "invalid_prompt" | "model_not_found" => {
            FailureKind::InvalidRequest
        }
        _ => return None,
    };
    Some(kind)
}

fn is_context_too_long(word: &str, message: &str) -> bool {
    if matches!(
        word,
        "context_length_exceeded" | "exceed_context_size_error" | "request_too_large"
    ) {
        return true;
    }
    let message = message.to_ascii_lowercase();
    [
        "prompt is too long",
        "input is too long",
        "maximum context length",
        "context length exceeded",
        "exceeds the context window",
        "exceeds the available context size",
        "exceed context limit",
        "longer than the model's context",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// The most telling machine word: `code` before `type`, where they are text.
fn word_of(json: &Value) -> String {
    let inner = if json["error"].is_object() {
        &json["error"]
    } else {
        json
    };
    ["code", "type"]
        .iter()
        .filter_map(|key| inner[*key].as_str())
        .find(|word| !word.is_empty() && *word != "error")
        .unwrap_or_default()
        .to_owned()
}

fn message_of(json: &Value) -> Option<String> {
    [
        &json["error"]["message"],
        &json["error"],
        &json["message"],
        &json["detail"],
    ]
    .into_iter()
    .find_map(|value| value.as_str().filter(|text| !text.trim().is_empty()))
    .map(str::to_owned)
}

/// A body that is not JSON, unless it is a web page.
fn plain_text(body: &str) -> Option<String> {
    let text = body.trim();
    (!text.is_empty() && !text.starts_with(['<', '{', '['])).then(|| text.to_owned())
}

fn shorten(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(MAX_QUOTE)
        .collect();
    if clean.len() < text.len() && text.chars().count() > MAX_QUOTE {
        clean + "…"
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_kinds() {
        use FailureKind::{ContextTooLong, InvalidRequest, Overloaded, RateLimited, TimedOut, Unauthorized};
        let openai_long = r#"{"error":{"message":"Too long.","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
        let anthropic_long = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#;
        let vllm_long = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","code":400}"#;
        let llama_long = r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#;
        for (status, body, expected) in [
            (401, "", Unauthorized),
            (403, "<html>no</html>", Unauthorized),
            (402, "", RateLimited),
            (429, "", RateLimited),
            (408, "", TimedOut),
            (400, openai_long, ContextTooLong),
            (400, anthropic_long, ContextTooLong),
            (400, vllm_long, ContextTooLong),
            (400, llama_long, ContextTooLong),
            (413, "", ContextTooLong),
            (400, r#"{"error":{"message":"bad"}}"#, InvalidRequest),
            (400, "not json", InvalidRequest),
            (404, r#"{"error":"model 'x' not found"}"#, InvalidRequest),
            (422, r#"[{"error":{"message":"bad"}}]"#, InvalidRequest),
            (302, "", InvalidRequest),
            (500, openai_long, Overloaded),
            (503, "", Overloaded),
            (
                529,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
                Overloaded,
            ),
        ] {
            assert_eq!(from_status(status, body, "m").kind, expected, "{status} {body}");
        }
    }

    #[test]
    fn messages_quote_the_provider_in_one_bounded_line() {
        let failure = from_status(404, r#"{"error":"model 'x'\nnot found"}"#, "x");
        assert_eq!(
            failure.message,
            "the provider does not know the model `x` or the address is wrong (status 404): model 'x' not found"
        );
        let long = "y".repeat(100_000);
        assert!(from_status(400, &long, "x").message.chars().count() < 700);
        assert_eq!(
            from_status(502, "<html>", "x").message,
            "the provider has trouble (status 502)"
        );
    }

    #[test]
    fn an_account_without_credit_is_not_asked_again() {
        let body = r#"{"error":{"message":"You exceeded your current quota.","code":"insufficient_quota"}}"#;
        assert!(is_final(&from_status(429, body, "m")));
        assert!(!is_final(&from_status(
            429,
            r#"{"error":{"message":"Slow down."}}"#,
            "m"
        )));
    }

    #[test]
    fn errors_in_a_stream_become_kinds() {
        for (json, expected) in [
            (
                r#"{"type":"overloaded_error","message":"Overloaded"}"#,
                FailureKind::Overloaded,
            ),
            (
                r#"{"type":"rate_limit_error","message":"x"}"#,
                FailureKind::RateLimited,
            ),
            (
                r#"{"code":"rate_limit_exceeded","message":"x"}"#,
                FailureKind::RateLimited,
            ),
            (
                r#"{"code":"context_length_exceeded","message":"x"}"#,
                FailureKind::ContextTooLong,
            ),
            (r#"{"code":400,"message":"bad"}"#, FailureKind::InvalidRequest),
            (r#"{"message":"?"}"#, FailureKind::Overloaded),
            ("{}", FailureKind::Overloaded),
            ("null", FailureKind::Overloaded),
        ] {
            let json = serde_json::from_str(json).unwrap();
            assert_eq!(in_stream(&json).kind, expected, "{json}");
        }
    }
}
