//! Finds a repository's environment: an administrator's, else the repository's own file, else the defaults.

use super::check::{CheckedEnvironment, EnvironmentError, Fault, Path};
use super::{ENVIRONMENT_FILE, MAX_ENVIRONMENT_BYTES, read_toml};
use greenroom_forge::{FileAtCommit, Forge, RepositoryError};
use greenroom_protocol::client::environment::EnvironmentSource;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::Environment;
use greenroom_store::catalog::Catalog;

/// An environment as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundEnvironment {
    pub source: EnvironmentSource,
    /// An error of the environment itself; failures to look for it are no part of this.
    pub checked: Result<CheckedEnvironment, EnvironmentError>,
}

/// Looks for the environment of a repository. Its own file is read at the head of `branch`; an administrator's wins as a
/// whole. Without a branch (an empty repository) there is no file.
///
/// # Errors
/// The catalog or the repository cannot be read.
pub async fn find(
    catalog: &Catalog,
    forge: &Forge,
    repository: &str,
    branch: Option<&str>,
) -> Result<FoundEnvironment, Problem> {
    let stored = catalog
        .environment(repository)
        .await
        .map_err(|error| error.problem())?;
    if let Some(body) = stored {
        return Ok(FoundEnvironment {
            source: EnvironmentSource::Administrator,
            checked: from_json(&format!("the environment set for {repository}"), &body),
        });
    }
    let file = match branch {
        Some(branch) => {
            let read = forge.read_file(repository, branch, ENVIRONMENT_FILE, MAX_ENVIRONMENT_BYTES);
            match read.await {
                Ok(file) => file,
                // An empty repository has no branch yet.
                Err(RepositoryError::BranchUnknown { .. }) => FileAtCommit::Missing,
                Err(error) => return Err(error.problem()),
            }
        }
        None => FileAtCommit::Missing,
    };
    let (source, checked) = match file {
        FileAtCommit::Missing => (EnvironmentSource::Defaults, Ok(CheckedEnvironment::default())),
        FileAtCommit::Content(bytes) => (EnvironmentSource::Repository, read_toml(ENVIRONMENT_FILE, &bytes)),
        FileAtCommit::TooLarge { size_bytes } => (
            EnvironmentSource::Repository,
            Err(unreadable(
                ENVIRONMENT_FILE,
                format!("has {size_bytes} bytes; {MAX_ENVIRONMENT_BYTES} are the most"),
            )),
        ),
        FileAtCommit::NotAFile => (
            EnvironmentSource::Repository,
            Err(unreadable(ENVIRONMENT_FILE, "is no regular file".to_owned())),
        ),
    };
    Ok(FoundEnvironment { source, checked })
}

/// What was stored was valid then; a newer or older program may see it otherwise.
fn from_json(place: &str, body: &str) -> Result<CheckedEnvironment, EnvironmentError> {
    let written: Environment =
        serde_json::from_str(body).map_err(|error| unreadable(place, format!("cannot be read: {error}")))?;
    CheckedEnvironment::new(written).map_err(|faults| EnvironmentError {
        place: place.to_owned(),
        faults,
    })
}

fn unreadable(place: &str, message: String) -> EnvironmentError {
    EnvironmentError {
        place: place.to_owned(),
        faults: vec![Fault {
            path: Path(Vec::new()),
            line: None,
            message,
            hint: None,
        }],
    }
}
