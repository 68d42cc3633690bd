//! Secrets such as model keys: written and named here, never read back. Only the owner may.

use super::app::App;
use super::body::JsonBody;
use super::caller::{Caller, check_owner};
use super::failure::ApiFailure;
use super::names::Named;
use super::parameters::InPath;
use crate::environment::is_secret_name;
use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::secret::{SecretNames, SetSecret};
use greenroom_stdx::secret::Secret;

const MAX_SECRET_BYTES: usize = 64 * 1024;

pub async fn list(State(app): State<App>, caller: Caller) -> Result<Json<SecretNames>, ApiFailure> {
    check_owner(&caller)?;
    let names = app
        .catalog
        .secret_names()
        .await
        .map_err(|error| error.problem())?;
    Ok(Json(SecretNames { names }))
}

pub async fn set(
    State(app): State<App>,
    caller: Caller,
    InPath(Named { name }): InPath<Named>,
    JsonBody(body): JsonBody<SetSecret>,
) -> Result<NoContent, ApiFailure> {
    check_owner(&caller)?;
    check_name(&name)?;
    if body.value.is_empty() || body.value.len() > MAX_SECRET_BYTES {
        return Err(Problem::permanent("secret_invalid", "A secret is 1 byte to 64 KiB.").into());
    }
    app.catalog
        .set_secret(&name, &Secret::new(body.value))
        .await
        .map_err(|error| error.problem())?;
    Ok(NoContent)
}

pub async fn remove(
    State(app): State<App>,
    caller: Caller,
    InPath(Named { name }): InPath<Named>,
) -> Result<NoContent, ApiFailure> {
    check_owner(&caller)?;
    app.catalog
        .remove_secret(&name)
        .await
        .map_err(|error| error.problem())?;
    Ok(NoContent)
}

fn check_name(name: &str) -> Result<(), Problem> {
    if is_secret_name(name) {
        return Ok(());
    }
    Err(
        Problem::permanent("secret_name_invalid", "This is not a name for a secret.")
            .with_hint("Use 1 to 100 letters, digits, `_`, `-` and `.`."),
    )
}
