//! Images of environments, one row for each attempt to build one.

use super::{Catalog, CatalogError, During};
use greenroom_protocol::client::image::Image;
use greenroom_protocol::id::ImageId;
use rusqlite::{OptionalExtension, Row, params};

impl Catalog {
    /// Adds an image, or replaces what is known of it. What was published, or has failed, never changes: an error.
    pub async fn put_image(&self, image: &Image) -> Result<(), CatalogError> {
        let image = image.clone();
        self.database
            .write(move |db| {
                // Plain data always encodes.
                let body = serde_json::to_string(&image).unwrap_or_default();
                db.execute(
                    "INSERT INTO images (id, repository, branch, state, created_at_ms, body)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body",
                    params![
                        image.id.as_str(),
                        image.repository,
                        image.branch,
                        image.state.name(),
                        image.created_at_ms,
                        body
                    ],
                )
                .during("put image")?;
                Ok(())
            })
            .await
    }

    /// One image.
    pub async fn image(&self, id: &ImageId) -> Result<Option<Image>, CatalogError> {
        let id = id.clone();
        self.database
            .read(move |db| {
                db.prepare_cached("SELECT body FROM images WHERE id = ?1")
                    .and_then(|mut query| query.query_row([id.as_str()], image_of).optional())
                    .during("read image")
            })
            .await
    }

    /// The newest images of a repository, the newest first.
    pub async fn images(&self, repository: &str, limit: u32) -> Result<Vec<Image>, CatalogError> {
        let repository = repository.to_owned();
        self.database
            .read(move |db| {
                db.prepare_cached(
                    "SELECT body FROM images WHERE repository = ?1 ORDER BY created_at_ms DESC, id DESC LIMIT ?2",
                )
                .and_then(|mut query| query.query_map(params![repository, limit], image_of)?.collect())
                .during("list images")
            })
            .await
    }

    /// Images of all repositories, the oldest first.
    pub async fn all_images(&self) -> Result<Vec<Image>, CatalogError> {
        self.database
            .read(|db| {
                db.prepare_cached("SELECT body FROM images ORDER BY created_at_ms, id")
                    .and_then(|mut query| query.query_map([], image_of)?.collect())
                    .during("list images")
            })
            .await
    }

    /// The image that sandboxes of a branch begin with: the newest one that was published.
    pub async fn current_image(&self, repository: &str, branch: &str) -> Result<Option<Image>, CatalogError> {
        let (repository, branch) = (repository.to_owned(), branch.to_owned());
        self.database
            .read(move |db| {
                db.prepare_cached(
                    "SELECT body FROM images WHERE repository = ?1 AND branch = ?2 AND state = 'published'
                     ORDER BY created_at_ms DESC, id DESC LIMIT 1",
                )
                .and_then(|mut query| query.query_row(params![repository, branch], image_of).optional())
                .during("read current image")
            })
            .await
    }

    /// Forgets an image. One that does not exist is fine.
    pub async fn remove_image(&self, id: &ImageId) -> Result<(), CatalogError> {
        let id = id.clone();
        self.database
            .write(move |db| {
                db.execute("DELETE FROM images WHERE id = ?1", [id.as_str()])
                    .during("remove image")?;
                Ok(())
            })
            .await
    }
}

fn image_of(row: &Row<'_>) -> rusqlite::Result<Image> {
    let body: String = row.get(0)?;
    serde_json::from_str(&body).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}
