//! The header that makes repeating a command harmless.

use super::failure::ApiFailure;
use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{
    HeaderStyle, Operation, Parameter, ParameterData, ParameterSchemaOrContent, SchemaObject,
};
use aide::operation::add_parameters;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use greenroom_protocol::client::IDEMPOTENCY_KEY_HEADER;
use greenroom_protocol::client::problem::Problem;

/// A key the caller must send.
pub struct RequiredKey(pub String);

/// A key the caller may send.
pub struct OptionalKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for RequiredKey {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiFailure> {
        read(&parts.headers)?.map(Self).ok_or_else(|| {
            Problem::permanent(
                "idempotency_key_required",
                "The header Idempotency-Key is missing.",
            )
            .with_hint("Send a fresh random key with each command, and the same one when you repeat it.")
            .into()
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OptionalKey {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiFailure> {
        Ok(Self(read(&parts.headers)?))
    }
}

/// The key that a request names, if it names one.
pub fn read(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY_HEADER) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(
            Problem::permanent("idempotency_key_invalid", "The idempotency key is not usable.")
                .with_hint("Use 1 to 128 visible ASCII characters."),
        ),
    }
}

fn document(ctx: &mut GenContext, operation: &mut Operation, required: bool) {
    let mut json_schema = ctx.schema.subschema_for::<String>();
    json_schema.insert("minLength".to_owned(), 1.into());
    json_schema.insert("maxLength".to_owned(), 128.into());
    let parameter_data = ParameterData {
        name: "Idempotency-Key".to_owned(),
        description: Some("1 to 128 visible ASCII characters; the same for a repetition.".to_owned()),
        required,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(SchemaObject {
            json_schema,
            external_docs: None,
            example: None,
        }),
        example: None,
        examples: Default::default(),
        explode: None,
        extensions: Default::default(),
    };
    add_parameters(
        ctx,
        operation,
        [Parameter::Header {
            parameter_data,
            style: HeaderStyle::Simple,
        }],
    );
}

impl OperationInput for RequiredKey {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        document(ctx, operation, true);
    }
}

impl OperationInput for OptionalKey {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        document(ctx, operation, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn keys_are_visible_ascii() {
        for (value, is_fit) in [
            ("a", true),
            ("", false),
            ("a b", false),
            (&"k".repeat(129), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY_HEADER, HeaderValue::from_str(value).unwrap());
            assert_eq!(read(&headers).is_ok(), is_fit, "{value:?}");
        }
    }
}
