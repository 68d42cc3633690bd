//! Images of repositories: which there are, how one came to be, and asking for one.

use super::app::App;
use super::body::JsonBody;
use super::caller::{Caller, check_owner};
use super::failure::ApiFailure;
use super::names::{ImagePath, LogQuery, Named};
use super::parameters::{InPath, InQuery};
use super::reply::Accepted;
use axum::Json;
use axum::extract::State;
use greenroom_protocol::client::image::{
    BuildImage, Image, ImageList, ImageLog, ImageTrigger, RegistryImage,
};
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::ImageId;

pub async fn list(
    State(app): State<App>,
    _: Caller,
    InPath(Named { name }): InPath<Named>,
) -> Result<Json<ImageList>, ApiFailure> {
    Ok(Json(app.images.list(&name).await?))
}

pub async fn build(
    State(app): State<App>,
    caller: Caller,
    InPath(Named { name }): InPath<Named>,
    JsonBody(body): JsonBody<BuildImage>,
) -> Result<Accepted<Image>, ApiFailure> {
    let trigger = ImageTrigger::Person { id: caller.person.id };
    Ok(Accepted(
        app.images.request(&name, trigger, body.from_scratch).await?,
    ))
}

pub async fn show(
    State(app): State<App>,
    _: Caller,
    InPath(path): InPath<ImagePath>,
) -> Result<Json<Image>, ApiFailure> {
    Ok(Json(app.images.image(&id(&path)?).await?))
}

pub async fn log(
    State(app): State<App>,
    _: Caller,
    InPath(path): InPath<ImagePath>,
    InQuery(LogQuery { after }): InQuery<LogQuery>,
) -> Result<Json<ImageLog>, ApiFailure> {
    Ok(Json(app.images.log(&id(&path)?, after.unwrap_or(0)).await?))
}

/// What the name of an image in a registry stands for now.
pub async fn pin(
    State(app): State<App>,
    caller: Caller,
    InQuery(image): InQuery<RegistryImage>,
) -> Result<Json<RegistryImage>, ApiFailure> {
    check_owner(&caller)?;
    Ok(Json(app.images.pin(&image.reference).await?))
}

pub async fn push(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<ImagePath>,
    JsonBody(body): JsonBody<RegistryImage>,
) -> Result<Json<RegistryImage>, ApiFailure> {
    check_owner(&caller)?;
    Ok(Json(app.images.push(&id(&path)?, &body.reference).await?))
}

pub async fn pull(
    State(app): State<App>,
    caller: Caller,
    InPath(Named { name }): InPath<Named>,
    JsonBody(body): JsonBody<RegistryImage>,
) -> Result<Json<Image>, ApiFailure> {
    check_owner(&caller)?;
    let person = caller.person.id;
    Ok(Json(app.images.pull(&name, &body.reference, person).await?))
}

fn id(path: &ImagePath) -> Result<ImageId, Problem> {
    path.id.parse().map_err(|_| {
        Problem::permanent("image_unknown", "There is no such image.")
            .with_hint("List a repository's images with `greenroom image list REPOSITORY`.")
    })
}
