//! What the server knows of repositories beyond what the forge keeps.

use super::sessions::id_at;
use super::{Catalog, CatalogError, During};
use greenroom_protocol::id::PersonId;
use rusqlite::{ErrorCode, OptionalExtension, Row, params};

/// A repository's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryRow {
    /// Unique.
    pub name: String,
    /// Where it was imported from, if it was.
    pub source: Option<String>,
    pub created_at_ms: i64,
    pub created_by: PersonId,
}

impl Catalog {
    /// Adds a repository; `RepositoryExists` if the name is taken.
    pub async fn add_repository(&self, repository: RepositoryRow) -> Result<(), CatalogError> {
        self.database
            .write(move |db| {
                let inserted = db.execute(
                    "INSERT INTO repositories (name, source, created_at_ms, created_by) VALUES (?1, ?2, ?3, ?4)",
                    params![
                        repository.name,
                        repository.source,
                        repository.created_at_ms,
                        repository.created_by.as_str()
                    ],
                );
                match inserted {
                    Err(rusqlite::Error::SqliteFailure(error, _))
                        if error.code == ErrorCode::ConstraintViolation =>
                    {
                        Err(CatalogError::RepositoryExists)
                    }
                    other => other.map(|_| ()).during("insert repository"),
                }
            })
            .await
    }

    /// The repository of this name.
    pub async fn repository(&self, name: &str) -> Result<Option<RepositoryRow>, CatalogError> {
        let name = name.to_owned();
        self.database
            .read(move |db| {
                db.query_row(
                    "SELECT name, source, created_at_ms, created_by FROM repositories WHERE name = ?1",
                    [name],
                    row_of,
                )
                .optional()
                .during("read repository")
            })
            .await
    }

    /// All repositories, sorted by name.
    pub async fn repositories(&self) -> Result<Vec<RepositoryRow>, CatalogError> {
        self.database
            .read(|db| {
                db.prepare_cached(
                    "SELECT name, source, created_at_ms, created_by FROM repositories ORDER BY name",
                )
                .and_then(|mut query| query.query_map([], row_of)?.collect())
                .during("list repositories")
            })
            .await
    }

    /// Forgets a repository. Removing one that does not exist changes nothing.
    pub async fn remove_repository(&self, name: &str) -> Result<(), CatalogError> {
        let name = name.to_owned();
        self.database
            .write(move |db| {
                db.execute("DELETE FROM repositories WHERE name = ?1", [name])
                    .during("remove repository")?;
                Ok(())
            })
            .await
    }
}

fn row_of(row: &Row<'_>) -> rusqlite::Result<RepositoryRow> {
    Ok(RepositoryRow {
        name: row.get(0)?,
        source: row.get(1)?,
        created_at_ms: row.get(2)?,
        created_by: id_at(row, 3)?,
    })
}
