//! Environments of repositories: what is in force, what an administrator sets, and whether a file would do.

use super::app::App;
use super::body::JsonBody;
use super::caller::{Caller, check_owner};
use super::failure::ApiFailure;
use super::names::Named;
use super::parameters::InPath;
use crate::environment::{
    BoundedEnvironment, CheckedEnvironment, ENVIRONMENT_FILE, EnvironmentError, FoundEnvironment,
    MAX_ENVIRONMENT_BYTES, read_devcontainer, read_toml,
};
use crate::repositories::{heads, repositories};
use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use greenroom_protocol::client::environment::{
    CheckEnvironment, EnvironmentKind, EnvironmentReport, EnvironmentSource,
};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::Environment;

/// How an environment from the API is called in problems.
const PLACE: &str = "the environment";
const DEVCONTAINER: &str = "devcontainer.json";

pub async fn show(
    State(app): State<App>,
    _: Caller,
    InPath(Named { name }): InPath<Named>,
) -> Result<Json<EnvironmentReport>, ApiFailure> {
    let repository = app
        .forge
        .repository(&name)
        .await
        .map_err(|error| error.problem())?;
    let branch = repository.default_branch.as_deref();
    let found = app.services.environments(true).find(&name, branch).await?;
    Ok(Json(report(&app, &name, found).await?))
}

pub async fn set(
    State(app): State<App>,
    caller: Caller,
    InPath(Named { name }): InPath<Named>,
    JsonBody(written): JsonBody<Environment>,
) -> Result<Json<EnvironmentReport>, ApiFailure> {
    check_owner(&caller)?;
    app.forge
        .repository(&name)
        .await
        .map_err(|error| error.problem())?;
    let body = serde_json::to_string(&written)
        .map_err(|_| Problem::permanent("internal", "The environment cannot be written as JSON."))?;
    if body.len() as u64 > MAX_ENVIRONMENT_BYTES {
        return Err(
            Problem::permanent("environment_too_large", "An environment has at most 64 KiB.")
                .with_hint("Put long commands into scripts of the repository.")
                .into(),
        );
    }
    let checked = CheckedEnvironment::new(written).map_err(|faults| {
        let place = PLACE.to_owned();
        EnvironmentError { place, faults }.problem()
    })?;
    let found = FoundEnvironment::new(EnvironmentSource::Administrator, Ok(checked));
    let report = report(&app, &name, found).await?;
    // One that no sandbox could start with is not kept.
    if let Some(problem) = report.problem {
        return Err(problem.into());
    }
    app.catalog
        .put_environment(&name, &body, &caller.person.id)
        .await
        .map_err(|error| error.problem())?;
    app.services.changes.tell(&name);
    tracing::info!(repository = name, "an administrator set an environment");
    Ok(Json(report))
}

pub async fn remove(
    State(app): State<App>,
    caller: Caller,
    InPath(Named { name }): InPath<Named>,
) -> Result<NoContent, ApiFailure> {
    check_owner(&caller)?;
    app.forge
        .repository(&name)
        .await
        .map_err(|error| error.problem())?;
    app.catalog
        .remove_environment(&name)
        .await
        .map_err(|error| error.problem())?;
    app.services.changes.tell(&name);
    Ok(NoContent)
}

pub async fn check(
    State(app): State<App>,
    _: Caller,
    JsonBody(body): JsonBody<CheckEnvironment>,
) -> Result<Json<EnvironmentReport>, ApiFailure> {
    let own = EnvironmentSource::Repository;
    let found = match body.kind {
        EnvironmentKind::Toml => {
            FoundEnvironment::new(own, read_toml(ENVIRONMENT_FILE, body.text.as_bytes()))
        }
        EnvironmentKind::Devcontainer => match read_devcontainer(DEVCONTAINER, body.text.as_bytes()) {
            Ok(found) => {
                app.services
                    .environments(true)
                    .pinned(DEVCONTAINER, found)
                    .await?
            }
            Err(error) => FoundEnvironment::new(own, Err(error)),
        },
    };
    // Whose it will be is not known yet.
    Ok(Json(report(&app, "", found).await?))
}

async fn report(app: &App, name: &str, found: FoundEnvironment) -> Result<EnvironmentReport, Problem> {
    let (source, unsupported) = (found.source, found.notices);
    let checked = match found.checked {
        Ok(checked) => checked,
        Err(error) => {
            return Ok(EnvironmentReport {
                source,
                environment: Environment::default(),
                notices: unsupported,
                problem: Some(error.problem()),
            });
        }
    };
    let (mut notices, problem) = match app.services.bounds.apply(source, &checked) {
        Ok(bounded) => {
            let missing = missing_repositories(app, name, &bounded).await;
            ([unsupported, bounded.notices, missing].concat(), None)
        }
        Err(problem) => (unsupported, Some(problem)),
    };
    if source == EnvironmentSource::Administrator {
        notices.extend(missing_secrets(app, checked.written()).await?);
    }
    Ok(EnvironmentReport {
        source,
        environment: checked.written().clone(),
        notices,
        problem,
    })
}

/// A repository may be added later, but sessions fail until then.
async fn missing_repositories(app: &App, name: &str, environment: &BoundedEnvironment) -> Vec<Problem> {
    let found = async {
        let found = repositories(&app.forge, name, "", environment).await?;
        heads(&app.forge, &found[1..]).await
    };
    found.await.err().into_iter().collect()
}

/// A secret may be stored later, but whoever mistyped its name wants to know now.
async fn missing_secrets(app: &App, written: &Environment) -> Result<Vec<Problem>, Problem> {
    if written.egress.credentials.is_empty() {
        return Ok(Vec::new());
    }
    let stored = app
        .catalog
        .secret_names()
        .await
        .map_err(|error| error.problem())?;
    let missing = written
        .egress
        .credentials
        .iter()
        .filter(|credential| !stored.contains(&credential.secret));
    Ok(missing
        .map(|credential| {
            let message = format!(
                "There is no secret `{}` yet, so requests to {} will fail.",
                credential.secret, credential.host
            );
            Problem::permanent("secret_unknown", message).with_hint(format!(
                "Store it with `greenroom secret set {}`.",
                credential.secret
            ))
        })
        .collect())
}
