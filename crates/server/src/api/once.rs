//! Commands to a session under idempotency keys: the session's actor keeps their receipts with what they change, in one transaction.

use super::app::App;
use super::caller::Caller;
use super::idempotency::OptionalKey;
use super::receipts::REPLAYED_HEADER;
use crate::session::command::{COMMAND_REPEATED, Once, SessionHandle};
use crate::session::digest_of;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as DocumentedResponse, StatusCode as DocumentedStatus};
use aide::operation::OperationOutput;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::Session;

/// An answer that says whether it was given before.
pub struct Repeatable<T> {
    pub answer: T,
    pub is_repeated: bool,
}

impl<T: IntoResponse> IntoResponse for Repeatable<T> {
    fn into_response(self) -> Response {
        let mut response = self.answer.into_response();
        if self.is_repeated {
            let name = HeaderName::from_static(REPLAYED_HEADER);
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("true"));
        }
        response
    }
}

impl<T: OperationOutput> OperationOutput for Repeatable<T> {
    type Inner = T::Inner;

    fn operation_response(ctx: &mut GenContext, operation: &mut Operation) -> Option<DocumentedResponse> {
        T::operation_response(ctx, operation)
    }

    fn inferred_responses(
        ctx: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<DocumentedStatus>, DocumentedResponse)> {
        T::inferred_responses(ctx, operation)
    }
}

/// The command that a request is, if it has a key. `what` is all that it asks for.
pub fn once(caller: &Caller, OptionalKey(key): OptionalKey, what: &[&[u8]]) -> Option<Once> {
    Some(Once {
        person: caller.person.id.clone(),
        key: key?,
        digest: digest_of(what),
    })
}

/// Has the session carry the command out, unless it did before; answers with the session as it was right after it.
pub async fn carry_out(
    app: &App,
    handle: SessionHandle,
    once: Option<Once>,
    command: impl AsyncFnOnce(&SessionHandle) -> Result<Session, Problem>,
) -> Result<Repeatable<Session>, Problem> {
    let handle = handle.under(once.clone());
    match (command(&handle).await, once) {
        (Err(problem), Some(once)) if problem.code == COMMAND_REPEATED => {
            let receipt = app.store.receipt(&handle.id, &once.person, &once.key).await;
            let receipt = receipt.map_err(|error| error.problem())?;
            let answer = receipt.and_then(|receipt| serde_json::from_value(receipt.body).ok());
            Ok(Repeatable {
                answer: answer
                    .ok_or_else(|| Problem::permanent("internal", "A stored receipt cannot be read."))?,
                is_repeated: true,
            })
        }
        (answer, _) => Ok(Repeatable {
            answer: answer?,
            is_repeated: false,
        }),
    }
}

impl<T> Repeatable<T> {
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Repeatable<U> {
        Repeatable {
            answer: to(self.answer),
            is_repeated: self.is_repeated,
        }
    }
}
