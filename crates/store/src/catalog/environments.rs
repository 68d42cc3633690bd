//! Environments that administrators set for repositories. What they say is the server's to check.

use super::{Catalog, CatalogError, During};
use greenroom_protocol::id::PersonId;
use rusqlite::{OptionalExtension, params};

impl Catalog {
    /// The environment set for a repository, as the JSON that was stored.
    pub async fn environment(&self, repository: &str) -> Result<Option<String>, CatalogError> {
        let repository = repository.to_owned();
        self.database
            .read(move |db| {
                db.prepare_cached("SELECT body FROM environments WHERE repository = ?1")
                    .and_then(|mut query| query.query_row([repository], |row| row.get(0)).optional())
                    .during("read environment")
            })
            .await
    }

    /// Sets or replaces a repository's environment.
    pub async fn put_environment(
        &self,
        repository: &str,
        body: &str,
        by: &PersonId,
    ) -> Result<(), CatalogError> {
        let (repository, body, by) = (repository.to_owned(), body.to_owned(), by.clone());
        let now_ms = self.clock.now_ms();
        self.database
            .write(move |db| {
                db.execute(
                    "INSERT INTO environments (repository, body, updated_at_ms, updated_by) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (repository) DO UPDATE SET body = excluded.body,
                       updated_at_ms = excluded.updated_at_ms, updated_by = excluded.updated_by",
                    params![repository, body, now_ms, by.as_str()],
                )
                .during("put environment")?;
                Ok(())
            })
            .await
    }

    /// Forgets a repository's environment. Removing one that does not exist changes nothing.
    pub async fn remove_environment(&self, repository: &str) -> Result<(), CatalogError> {
        let repository = repository.to_owned();
        self.database
            .write(move |db| {
                db.execute("DELETE FROM environments WHERE repository = ?1", [repository])
                    .during("remove environment")?;
                Ok(())
            })
            .await
    }
}
