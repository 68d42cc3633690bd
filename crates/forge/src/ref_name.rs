//! Which texts may name a branch, by the rules of git-check-ref-format(1). Pure.

/// Longest branch name that is accepted, in bytes.
pub const MAX_BRANCH_NAME_BYTES: usize = 200;

/// Whether `name` may name a branch (without `refs/heads/`).
pub fn is_branch_name(name: &str) -> bool {
    let is_forbidden =
        |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    !name.is_empty()
        && name.len() <= MAX_BRANCH_NAME_BYTES
        && name != "HEAD"
        && name != "@"
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(is_forbidden)
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branch_names() {
        for name in [
            "main",
            "greenroom/fix-tests-0a1b2c",
            "ünïcode",
            "a.b",
            "x@y",
            "refs/heads/main",
            "日本",
        ] {
            assert!(is_branch_name(name), "{name}");
        }
        let long = "x".repeat(MAX_BRANCH_NAME_BYTES + 1);
        for name in [
            "",
            "HEAD",
            "@",
            "-x",
            "--upload-pack=x",
            "a..b",
            "../x",
            "a/",
            "/a",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "a@{1}",
            "a\nb",
            "a\0b",
            "a\x7fb",
            &long,
        ] {
            assert!(!is_branch_name(name), "{name:?}");
        }
    }
}
