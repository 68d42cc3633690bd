//! Finds a repository's environment: an administrator's, else the repository's own file, else its dev container, else the defaults.

use super::bounds::{BoundedEnvironment, Bounds};
use super::check::{CheckedEnvironment, EnvironmentError, Fault, MAX_FEATURES, Path};
use super::devcontainer::{DEVCONTAINER_FILES, DevContainer, read_devcontainer};
use super::{ENVIRONMENT_FILE, MAX_ENVIRONMENT_BYTES, read_toml};
use crate::sandbox::SandboxProvider;
use greenroom_forge::{FileAtCommit, Forge, RepositoryError};
use greenroom_protocol::client::environment::EnvironmentSource;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::environment::Environment;
use greenroom_protocol::reference::Reference;
use greenroom_store::catalog::Catalog;

/// What a name in a registry stands for is looked up again after this.
const PIN_AGE_MS: i64 = 24 * 60 * 60 * 1000;

/// An environment as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundEnvironment {
    pub source: EnvironmentSource,
    /// An error of the environment itself; failures to look for it are no part of this.
    pub checked: Result<CheckedEnvironment, EnvironmentError>,
    /// What of it is not supported.
    pub notices: Vec<Problem>,
}

impl FoundEnvironment {
    /// Without notices.
    pub fn new(source: EnvironmentSource, checked: Result<CheckedEnvironment, EnvironmentError>) -> Self {
        Self {
            source,
            checked,
            notices: Vec::new(),
        }
    }

    /// The part that this server grants.
    pub fn bounded(self, bounds: &Bounds) -> Result<BoundedEnvironment, Problem> {
        let checked = self.checked.map_err(|error| error.problem())?;
        let mut bounded = bounds.apply(self.source, &checked)?;
        bounded.notices.splice(0..0, self.notices);
        Ok(bounded)
    }
}

/// Where environments are looked for.
#[derive(Clone, Copy)]
pub struct EnvironmentFinder<'a> {
    pub catalog: &'a Catalog,
    pub forge: &'a Forge,
    pub sandboxes: &'a dyn SandboxProvider,
    pub bounds: &'a Bounds,
    pub now_ms: i64,
    /// Whether there is time to ask a registry what a name stands for that was asked before.
    pub may_ask_again: bool,
}

impl EnvironmentFinder<'_> {
    /// Looks for the environment of a repository. Its own file is read at the head of `branch`; an administrator's wins as a
    /// whole. Without a branch (an empty repository) there is no file.
    ///
    /// # Errors
    /// The catalog, the repository or a registry cannot be read.
    pub async fn find(&self, repository: &str, branch: Option<&str>) -> Result<FoundEnvironment, Problem> {
        let stored = self.catalog.environment(repository).await;
        if let Some(body) = stored.map_err(|error| error.problem())? {
            let place = format!("the environment set for {repository}");
            return Ok(FoundEnvironment::new(
                EnvironmentSource::Administrator,
                from_json(&place, &body),
            ));
        }
        let own = EnvironmentSource::Repository;
        if let Some(file) = self.file(repository, branch, ENVIRONMENT_FILE).await? {
            let checked = file.and_then(|bytes| read_toml(ENVIRONMENT_FILE, &bytes));
            return Ok(FoundEnvironment::new(own, checked));
        }
        for place in DEVCONTAINER_FILES {
            if let Some(file) = self.file(repository, branch, place).await? {
                return match file.and_then(|bytes| read_devcontainer(place, &bytes)) {
                    Ok(found) => self.pinned(place, found).await,
                    Err(error) => Ok(FoundEnvironment::new(own, Err(error))),
                };
            }
        }
        Ok(FoundEnvironment::new(
            EnvironmentSource::Defaults,
            Ok(CheckedEnvironment::default()),
        ))
    }

    /// `None` if there is no such file.
    async fn file(
        &self,
        repository: &str,
        branch: Option<&str>,
        place: &str,
    ) -> Result<Option<Result<Vec<u8>, EnvironmentError>>, Problem> {
        let Some(branch) = branch else {
            return Ok(None);
        };
        let read = self
            .forge
            .read_file(repository, branch, place, MAX_ENVIRONMENT_BYTES);
        Ok(match read.await {
            Ok(FileAtCommit::Missing) => None,
            // An empty repository has no branch yet.
            Err(RepositoryError::BranchUnknown { .. }) => None,
            Err(error) => return Err(error.problem()),
            Ok(FileAtCommit::Content(bytes)) => Some(Ok(bytes)),
            Ok(FileAtCommit::TooLarge { size_bytes }) => Some(Err(unreadable(
                place,
                format!("has {size_bytes} bytes; {MAX_ENVIRONMENT_BYTES} are the most"),
            ))),
            Ok(FileAtCommit::NotAFile) => Some(Err(unreadable(place, "is no regular file".to_owned()))),
        })
    }

    /// A dev container whose names in registries stand for something that stays.
    pub async fn pinned(&self, place: &str, found: DevContainer) -> Result<FoundEnvironment, Problem> {
        let mut environment = found.environment.clone();
        if let Some(name) = environment
            .base
            .as_deref()
            .and_then(|base| base.strip_prefix("oci:"))
        {
            environment.base = match self.pin(name).await? {
                Ok(reference) => Some(format!("oci:{reference}")),
                Err(why) => return Ok(wrong(place, &found, "base", why)),
            };
        }
        // Too many are refused below, and nothing is asked for them.
        let asked = match environment.features.len() {
            0..=MAX_FEATURES => environment.features.as_mut_slice(),
            _ => &mut [],
        };
        for feature in asked {
            match self.pin(&feature.reference).await? {
                Ok(reference) => feature.reference = reference,
                Err(why) => return Ok(wrong(place, &found, "features", why)),
            }
        }
        let checked = CheckedEnvironment::new(environment).map_err(|faults| EnvironmentError {
            place: place.to_owned(),
            faults: found.relate(faults),
        });
        Ok(FoundEnvironment {
            notices: found.notices,
            ..FoundEnvironment::new(EnvironmentSource::Repository, checked)
        })
    }

    /// A name of a repository's own file, with the digest that it stands for; or why it is none.
    async fn pin(&self, name: &str) -> Result<Result<String, String>, Problem> {
        let reference: Reference = match name.parse() {
            Ok(reference) => reference,
            Err(error) => return Ok(Err(format!("is wrong: {error}"))),
        };
        if reference.digest.is_some() {
            return Ok(Ok(reference.to_string()));
        }
        // Before anything is asked of it.
        self.bounds.check_registry(&reference)?;
        let known = self.catalog.image_pin(name).await;
        let known = known.map_err(|error| error.problem())?;
        if let Some((pinned, at_ms)) = &known {
            let age_ms = self.now_ms.saturating_sub(*at_ms);
            if !self.may_ask_again || (0..PIN_AGE_MS).contains(&age_ms) {
                return Ok(Ok(pinned.clone()));
            }
        }
        let pinned = match (self.sandboxes.pin_image(&reference).await, known) {
            (Ok(pinned), _) => pinned.to_string(),
            // What was right yesterday serves.
            (Err(problem), Some((pinned, _))) => {
                tracing::info!(
                    name,
                    code = problem.code,
                    "what a name stands for cannot be looked up: {}",
                    problem.message
                );
                pinned
            }
            (Err(problem), None) => return Err(problem),
        };
        let kept = self.catalog.put_image_pin(name, &pinned, self.now_ms).await;
        kept.map_err(|error| error.problem())?;
        Ok(Ok(pinned))
    }
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

fn wrong(place: &str, found: &DevContainer, field: &str, message: String) -> FoundEnvironment {
    let fault = Fault {
        path: Path(vec![super::check::Step::Field(field.to_owned())]),
        line: None,
        message,
        hint: None,
    };
    let error = EnvironmentError {
        place: place.to_owned(),
        faults: found.relate(vec![fault]),
    };
    FoundEnvironment::new(EnvironmentSource::Repository, Err(error))
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
