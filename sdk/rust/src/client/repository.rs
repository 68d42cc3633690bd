//! Endpoints about repositories of the built-in forge.

use super::{CALL_TIMEOUT, Client, Repeat};
use crate::failure::ClientError;
use greenroom_protocol::client::environment::{CheckEnvironment, EnvironmentKind, EnvironmentReport};
use greenroom_protocol::client::image::{BuildImage, Image, ImageList, ImageLog, RegistryImage};
use greenroom_protocol::client::repository::{
    AddRepository, BranchList, Repository, RepositoryList, TypingReport,
};
use greenroom_protocol::environment::Environment;
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
            .change(Method::POST, self.url(&["repositories"]))
            .timeout(IMPORT_TIMEOUT)
            .json(add);
        self.json(request, Repeat::Safe).await
    }

    /// Tells that somebody types a prompt for a new session; 429 if told a moment ago.
    pub async fn typing(&self, repository: &str) -> Result<TypingReport, ClientError> {
        let url = self.url(&["repositories", repository, "typing"]);
        let request = self.request(Method::POST, url).timeout(CALL_TIMEOUT);
        self.json(request, Repeat::Never).await
    }

    /// Branches, sorted by name; may be empty.
    pub async fn branches(&self, repository: &str) -> Result<BranchList, ClientError> {
        self.get(&["repositories", repository, "branches"]).await
    }

    /// The environment of a repository on its default branch.
    pub async fn environment(&self, repository: &str) -> Result<EnvironmentReport, ClientError> {
        self.get(&["repositories", repository, "environment"]).await
    }

    /// Sets a repository's environment; 422 `environment_invalid`. Only for administrators.
    pub async fn set_environment(
        &self,
        repository: &str,
        environment: &Environment,
    ) -> Result<EnvironmentReport, ClientError> {
        let url = self.url(&["repositories", repository, "environment"]);
        let request = self
            .change(Method::PUT, url)
            .timeout(CALL_TIMEOUT)
            .json(environment);
        self.json(request, Repeat::Safe).await
    }

    /// Images of a repository, newest first.
    pub async fn images(&self, repository: &str) -> Result<ImageList, ClientError> {
        self.get(&["repositories", repository, "images"]).await
    }

    /// Asks for an image of the default branch; one that waits already is the answer.
    pub async fn build_image(&self, repository: &str, build: &BuildImage) -> Result<Image, ClientError> {
        let url = self.url(&["repositories", repository, "images"]);
        let request = self.change(Method::POST, url).timeout(CALL_TIMEOUT).json(build);
        // A second one finds the first in the queue, or builds what is new since.
        self.json(request, Repeat::Safe).await
    }

    /// One image; 404 `image_unknown`.
    pub async fn image(&self, id: &str) -> Result<Image, ClientError> {
        self.get(&["images", id]).await
    }

    /// Puts a published image into a registry; answers the reference with its digest. Waits as long as it takes; again, it
    /// uploads what is missing.
    pub async fn push_image(&self, id: &str, reference: &str) -> Result<RegistryImage, ClientError> {
        let request = self.change(Method::POST, self.url(&["images", id, "push"]));
        self.json(request.json(&registry_image(reference)), Repeat::Safe)
            .await
    }

    /// Brings an image that a server pushed from a registry and publishes it. Waits as long as it takes.
    pub async fn pull_image(&self, repository: &str, reference: &str) -> Result<Image, ClientError> {
        let url = self.url(&["repositories", repository, "images", "pull"]);
        let request = self.change(Method::POST, url).json(&registry_image(reference));
        self.json(request, Repeat::Safe).await
    }

    /// What the name of an image in a registry stands for now.
    pub async fn pin_registry_image(&self, reference: &str) -> Result<RegistryImage, ClientError> {
        let query = [("reference", reference.to_owned())];
        self.get_with(&["registry-images"], &query).await
    }

    /// The log of an image's build from byte `after` on.
    pub async fn image_log(&self, id: &str, after: u64) -> Result<ImageLog, ClientError> {
        let mut url = self.url(&["images", id, "log"]);
        url.query_pairs_mut().append_pair("after", &after.to_string());
        let request = self.request(Method::GET, url).timeout(CALL_TIMEOUT);
        self.json(request, Repeat::Safe).await
    }

    /// Forgets the environment that was set. Only for administrators.
    pub async fn remove_environment(&self, repository: &str) -> Result<(), ClientError> {
        let url = self.url(&["repositories", repository, "environment"]);
        self.acknowledge(self.change(Method::DELETE, url)).await
    }

    /// Whether a text would do as a repository's own environment on this server.
    pub async fn check_environment(
        &self,
        text: &str,
        kind: EnvironmentKind,
    ) -> Result<EnvironmentReport, ClientError> {
        let body = CheckEnvironment {
            text: text.to_owned(),
            kind,
        };
        self.post(&["environment-checks"], &body).await
    }
}

pub(super) fn registry_image(reference: &str) -> RegistryImage {
    RegistryImage {
        reference: reference.to_owned(),
    }
}
