//! Which repositories a sandbox has, and at which commits their branches are.

use crate::environment::BoundedEnvironment;
use crate::session::state::BRANCH_PREFIX;
use greenroom_forge::Forge;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::client::session::WorkspaceRepository;

/// The repositories of a sandbox, the one whose environment it is first.
///
/// # Errors
/// `environment_refused`: another repository is not there, is empty, or is the same.
pub async fn repositories(
    forge: &Forge,
    name: &str,
    base_branch: &str,
    environment: &BoundedEnvironment,
) -> Result<Vec<WorkspaceRepository>, Problem> {
    let mut found = vec![WorkspaceRepository::own(name, base_branch)];
    for (index, other) in environment.repositories.iter().enumerate() {
        let refused = |what: &str| {
            let message = format!("repositories[{index}]: `{}` {what}.", other.name);
            Problem::permanent("environment_refused", message)
                .with_hint("`greenroom repo list` shows the repositories of this server.")
        };
        if other.name == name {
            return Err(refused(
                "is the environment's own repository, which is there anyway",
            ));
        }
        let base_branch = match &other.branch {
            Some(branch) => branch.clone(),
            None => match forge
                .default_branch(&other.name)
                .await
                .map_err(|error| error.problem())
            {
                // All that is there is a session's own.
                Ok(Some(branch)) if branch.starts_with(BRANCH_PREFIX) => {
                    return Err(refused("has no commit yet"));
                }
                Ok(Some(branch)) => branch,
                Ok(None) => return Err(refused("has no commit yet")),
                Err(problem) if problem.code == "repository_unknown" => {
                    return Err(refused("is not a repository of this server"));
                }
                Err(problem) => return Err(problem),
            },
        };
        found.push(WorkspaceRepository {
            name: other.name.clone(),
            base_branch,
            path: other.path().to_owned(),
        });
    }
    Ok(found)
}

/// A session's repositories when its environment names others than before: each stays where it is, and none goes that it worked in.
pub fn with_kept(
    named: Vec<WorkspaceRepository>,
    kept: Vec<WorkspaceRepository>,
) -> Vec<WorkspaceRepository> {
    let mut all: Vec<_> = named
        .into_iter()
        .map(|one| match kept.iter().find(|other| other.name == one.name) {
            Some(known) => WorkspaceRepository {
                path: known.path.clone(),
                ..one
            },
            None => one,
        })
        .collect();
    for known in kept {
        if !all.iter().any(|one| one.name == known.name) {
            all.push(known);
        }
    }
    all
}

/// The commits that their base branches are at, in the same order.
pub async fn heads(forge: &Forge, repositories: &[WorkspaceRepository]) -> Result<Vec<String>, Problem> {
    let mut heads = Vec::with_capacity(repositories.len());
    for WorkspaceRepository {
        name, base_branch, ..
    } in repositories
    {
        let head = forge.branch_commit(name, base_branch).await;
        heads.push(head.map_err(|error| {
            let problem = error.problem();
            Problem {
                message: format!("{name}: {}", problem.message),
                ..problem
            }
        })?);
    }
    Ok(heads)
}

/// Names of repositories that git in a sandbox of an environment may fetch from, the environment's own first.
pub fn names(own: &str, environment: &BoundedEnvironment) -> Vec<String> {
    let others = environment.repositories.iter().map(|other| other.name.clone());
    std::iter::once(own.to_owned()).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_keeps_what_it_has_where_it_has_it() {
        let at = |text: &str| -> Vec<WorkspaceRepository> {
            let one = |part: &str| {
                let (name, path) = part.split_once('@').unwrap_or((part, ""));
                WorkspaceRepository {
                    path: path.to_owned(),
                    ..WorkspaceRepository::own(name, "main")
                }
            };
            text.split_whitespace().map(one).collect()
        };
        for (named, kept, expected) in [
            ("shop core@core", "", "shop core@core"),
            ("shop", "shop core@a", "shop core@a"),
            ("shop core@b pay@c", "shop core@a", "shop core@a pay@c"),
            ("shop core@b pay@a", "shop core@a pay@b", "shop core@a pay@b"),
        ] {
            assert_eq!(with_kept(at(named), at(kept)), at(expected), "{named}, {kept}");
        }
    }
}
