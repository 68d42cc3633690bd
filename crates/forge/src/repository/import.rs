//! Adds a repository, empty or with all branches and tags of another, wholly or not at all.

use super::error::RepositoryError;
use super::{RepositoryRecord, write_record};
use crate::forge::Forge;
use crate::git::{Call, GitError};
use crate::ref_name::is_branch_name;
use greenroom_protocol::client::repository::Repository;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time to find out what a source is.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// How often and how long apart the remains of an import are removed until nothing is left.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(100);
/// Variables of the server's environment that an import over the network may need.
const NETWORK_ENVIRONMENT: [&str; 9] = [
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
];

/// Where a repository is copied from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    /// An absolute path on this machine.
    Path,
    /// An `https://` URL without credentials.
    Https,
}

impl SourceKind {
    /// `None` for anything else.
    fn of(source: &str) -> Option<Self> {
        if source.chars().any(char::is_control) {
            return None;
        }
        if source.starts_with('/') {
            return Some(Self::Path);
        }
        let rest = source.strip_prefix("https://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_plain = !authority.is_empty() && !authority.contains('@') && !authority.starts_with('-');
        is_plain.then_some(Self::Https)
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Path => "file",
            Self::Https => "https",
        }
    }
}

impl Forge {
    /// Adds a repository: empty without `source`, else with all its branches and tags (uncommitted work is not copied).
    /// It appears complete or not at all, also if the future is dropped or the server dies.
    ///
    /// # Errors
    /// `repository_name_invalid`, `repository_name_taken`, `source_invalid`, `source_not_a_repository`,
    /// `import_failed`, `git_timed_out`, `disk_full`.
    pub async fn add_repository(
        &self,
        name: &str,
        source: Option<&str>,
    ) -> Result<Repository, RepositoryError> {
        if !super::name::is_repository_name(name) {
            return Err(RepositoryError::NameInvalid {
                name: name.to_owned(),
            });
        }
        let taken = || RepositoryError::NameTaken {
            name: name.to_owned(),
        };
        let folder = |source| RepositoryError::Folder { source };
        let dir = self.dir_of(name);
        if tokio::fs::try_exists(&dir).await.map_err(folder)? {
            return Err(taken());
        }
        let unfinished = Unfinished(self.temporary_path());
        self.create(&unfinished.0, source).await?;
        let record = RepositoryRecord {
            created_at_ms: self.now_ms(),
            source: source.map(str::to_owned),
        };
        write_record(&unfinished.0, &record).await?;
        match tokio::fs::rename(&unfinished.0, &dir).await {
            Ok(()) => self.repository(name).await,
            // A folder never replaces one that has something in it (rename(2)): somebody else was first.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::AlreadyExists
                ) =>
            {
                Err(taken())
            }
            Err(error) => Err(folder(error)),
        }
    }

    async fn create(&self, dir: &Path, source: Option<&str>) -> Result<(), RepositoryError> {
        let init = Call::new([
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--initial-branch=main",
        ])
        .within(dir);
        tokio::fs::create_dir(dir)
            .await
            .map_err(|source| RepositoryError::Folder { source })?;
        self.git().run(init).await?.success()?;
        let Some(source) = source else { return Ok(()) };
        let invalid = || RepositoryError::SourceInvalid {
            source_text: source.to_owned(),
        };
        let kind = SourceKind::of(source).ok_or_else(invalid)?;
        let head = self.probe(dir, source, kind).await?;
        self.copy(dir, source, kind).await?;
        let refs = self.git().refs(dir, &["refs/heads"]).await?;
        if let Some(branch) = head.filter(|branch| is_branch_name(branch) && refs.branch(branch).is_some()) {
            self.point_head(dir, &branch).await?;
        }
        self.settle_head(dir, &refs).await?;
        Ok(())
    }

    /// Makes sure that the source is a repository; returns the branch it has checked out, if any.
    async fn probe(
        &self,
        dir: &Path,
        source: &str,
        kind: SourceKind,
    ) -> Result<Option<String>, RepositoryError> {
        let not_a_repository = |detail: String| RepositoryError::SourceNotARepository {
            source_text: source.to_owned(),
            detail,
        };
        // git would also take a bundle file.
        if kind == SourceKind::Path
            && !tokio::fs::metadata(source)
                .await
                .is_ok_and(|found| found.is_dir())
        {
            return Err(not_a_repository("not a folder".to_owned()));
        }
        let call = Call::new(["ls-remote", "--symref", "--", source, "HEAD"]);
        let call = network(call.within(dir).limit(PROBE_LIMIT), kind);
        let printed = match self.git().run(call).await?.success() {
            Ok(printed) => printed,
            Err(GitError::Failed { stderr, .. }) => return Err(not_a_repository(stderr)),
            Err(other) => return Err(other.into()),
        };
        let printed = String::from_utf8_lossy(&printed);
        let head = printed.lines().find_map(|line| {
            let target = line.strip_prefix("ref: ")?.strip_suffix("\tHEAD")?;
            target.strip_prefix("refs/heads/")
        });
        Ok(head.map(str::to_owned))
    }

    async fn copy(&self, dir: &Path, source: &str, kind: SourceKind) -> Result<(), RepositoryError> {
        let call = Call::new([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--update-shallow",
            "--",
            source,
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ]);
        let call = network(call.within(dir).limit(self.inner.config.import_limit), kind);
        let failed = |error| RepositoryError::ImportFailed {
            source_text: source.to_owned(),
            source: error,
        };
        self.git()
            .run(call)
            .await
            .map_err(failed)?
            .success()
            .map_err(failed)?;
        Ok(())
    }
}

fn network(call: Call, kind: SourceKind) -> Call {
    let call = call.env("GIT_ALLOW_PROTOCOL", kind.protocol());
    if kind == SourceKind::Path {
        return call;
    }
    NETWORK_ENVIRONMENT
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .fold(call, |call, (name, value)| call.env(name, value))
}

/// A repository that is being made; what is left of it when dropped is removed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let path = self.0.clone();
        // git may still be ending and writing into it, hence several attempts.
        let remove = move || {
            for _ in 0..REMOVE_ATTEMPTS {
                match std::fs::remove_dir_all(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                    Err(_) => std::thread::sleep(REMOVE_PAUSE),
                }
            }
            tracing::warn!(path = %path.display(), "an unfinished import remains until the next start");
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        for (source, expected) in [
            ("/srv/code", Some(SourceKind::Path)),
            ("https://example.org/a.git", Some(SourceKind::Https)),
            ("https://example.org:8443/a@b", Some(SourceKind::Https)),
            ("https://user:secret@example.org/a.git", None),
            ("https://", None),
            ("https://-oProxyCommand=x/", None),
            ("http://example.org/a", None),
            ("ssh://example.org/a", None),
            ("git@example.org:a", None),
            ("ext::sh -c id", None),
            ("file:///srv/code", None),
            ("--upload-pack=id", None),
            ("relative", None),
            ("/a\nb", None),
            ("", None),
        ] {
            assert_eq!(SourceKind::of(source), expected, "{source:?}");
        }
    }
}
