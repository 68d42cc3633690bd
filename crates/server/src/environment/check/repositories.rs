//! The repositories that sandboxes have beside the environment's own.

use super::{Fault, Path, check_count};
use greenroom_forge::{is_branch_name, is_repository_name};
use greenroom_protocol::environment::RepositoryDefinition;

/// Each is cloned, kept up to date, committed and pushed.
const MAX_REPOSITORIES: usize = 8;
/// Longest path, in bytes.
const MAX_PATH_BYTES: usize = 200;

pub(super) fn check(repositories: &[RepositoryDefinition], faults: &mut Vec<Fault>) {
    let all = Path::of("repositories");
    check_count(repositories.len(), MAX_REPOSITORIES, &all, faults);
    for (index, repository) in repositories.iter().enumerate() {
        let path = all.index(index);
        let before = &repositories[..index];
        if !is_repository_name(&repository.name) {
            faults.push(Fault::new(
                path.field("name"),
                "must be the name of a repository on this server",
                "`greenroom repo list` shows them.",
            ));
        } else if before.iter().any(|other| other.name == repository.name) {
            faults.push(Fault::new(
                path.field("name"),
                format!("`{}` is there twice", repository.name),
                "One of its branches can be checked out at a time.",
            ));
        }
        if repository
            .branch
            .as_deref()
            .is_some_and(|branch| !is_branch_name(branch))
        {
            faults.push(Fault::new(
                path.field("branch"),
                "must be the name of a branch",
                "Leave it out for the repository's default branch.",
            ));
        }
        let place = repository.path();
        let message = if !is_path(place) {
            "must be a relative path of plain names, without `.git`".to_owned()
        } else if let Some(other) = before.iter().find(|other| overlap(other.path(), place)) {
            format!("is `{place}`, and another repository is at `{}`", other.path())
        } else {
            continue;
        };
        // Where no path was written, the name is the path.
        let field = if repository.path.is_some() { "path" } else { "name" };
        faults.push(Fault::new(
            path.field(field),
            message,
            "It is a directory below the workspace, such as `libraries/core`, and no repository lies in another's.",
        ));
    }
}

/// What a shell, git's exclude files and every reader take as it is.
fn is_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+');
    path.len() <= MAX_PATH_BYTES
        && path.split('/').all(|part| {
            !part.is_empty()
                && part.bytes().all(is_plain)
                && !part.starts_with('-')
                && !matches!(part, "." | "..")
                && !part.eq_ignore_ascii_case(".git")
        })
        // What the platform reads of the session's own repository.
        && !matches!(path.split('/').next(), Some(".greenroom" | ".devcontainer"))
}

/// Whether one is, or is in, the other.
fn overlap(one: &str, other: &str) -> bool {
    let is_in = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_in(one, other) || is_in(other, one)
}

#[cfg(test)]
mod tests {
    use crate::environment::read_toml;

    #[test]
    fn repositories_are_named_once_and_lie_apart() {
        let errors = |text: &str| -> Vec<String> {
            match read_toml("e", text.as_bytes()) {
                Ok(_) => Vec::new(),
                Err(error) => error.lines().map(|(line, _)| line).collect(),
            }
        };
        let fine = "[[repositories]]\nname = \"core\"\n\n[[repositories]]\nname = \"web\"\nbranch = \"next\"\npath = \"apps/web\"";
        assert!(errors(fine).is_empty(), "{:?}", errors(fine));
        for (text, expected) in [
            (
                "[[repositories]]\nname = \"../core\"\npath = \"a\"",
                "e:2: repositories[0].name: must be the name of a repository on this server",
            ),
            (
                "[[repositories]]\nname = \"core\"\n[[repositories]]\nname = \"core\"\npath = \"b\"",
                "e:4: repositories[1].name: `core` is there twice",
            ),
            (
                "[[repositories]]\nname = \"core\"\nbranch = \"a b\"",
                "e:3: repositories[0].branch: must be the name of a branch",
            ),
            (
                "[[repositories]]\nname = \"core\"\n[[repositories]]\nname = \"web\"\npath = \"core/web\"",
                "e:5: repositories[1].path: is `core/web`, and another repository is at `core`",
            ),
        ] {
            assert_eq!(errors(text), [expected], "{text}");
        }
        for path in [
            "/a",
            "a/../b",
            ".git",
            "a/.GIT/b",
            "",
            "a//b",
            "a b",
            "-a",
            "a*",
            ".greenroom/x",
            "a\\n",
        ] {
            let found = errors(&format!("[[repositories]]\nname = \"core\"\npath = \"{path}\""));
            assert_eq!(
                found,
                ["e:3: repositories[0].path: must be a relative path of plain names, without `.git`"],
                "{path}"
            );
        }
        let many: String = (0..9)
            .map(|number| format!("[[repositories]]\nname = \"r{number}\"\n"))
            .collect();
        assert_eq!(
            errors(&many),
            ["e:1: repositories: has 9 entries; 8 are the most"]
        );
        assert_eq!(
            errors("[[repositories]]\nname = \"core\"\nurl = \"x\""),
            ["e:3: unknown field `url`, expected one of `name`, `branch`, `path`"],
        );
    }
}
