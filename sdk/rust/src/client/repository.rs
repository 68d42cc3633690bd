//! Endpoints about repositories of the built-in forge.

use super::{Client, Repeat};
use crate::failure::ClientError;
use greenroom_protocol::client::repository::{AddRepository, BranchList, Repository, RepositoryList};
use reqwest::Method;
use std::time::Duration;

/// An import copies a whole history over the network.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

impl Client {
    /// All repositories this person may read, sorted by name.
    pub async fn repositories(&self) -> Result<RepositoryList, ClientError> {
        self.get(&["repositories"]).await
    }

    /// One repository; 404 `repository_unknown`.
    pub async fn repository(&self, name: &str) -> Result<Repository, ClientError> {
        self.get(&["repositories", name]).await
    }

    /// Creates a repository, and imports into it if `add` names a source. Returns when the import is complete.
    pub async fn add_repository(&self, add: &AddRepository) -> Result<Repository, ClientError> {
        let request = self
            .request(Method::POST, self.url(&["repositories"]))
            .timeout(IMPORT_TIMEOUT)
            .json(add);
        self.json(request, Repeat::Never).await
    }

    /// Branches, sorted by name; may be empty.
    pub async fn branches(&self, repository: &str) -> Result<BranchList, ClientError> {
        self.get(&["repositories", repository, "branches"]).await
    }
}
