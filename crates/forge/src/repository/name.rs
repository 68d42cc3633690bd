//! Which texts may name a repository. Pure.

/// Whether `name` may name a repository: 1 to 100 of `a-z 0-9 . _ -`, a letter or digit first, not ending in `.git`.
pub fn is_repository_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 100
        && name.bytes().next().is_some_and(is_plain)
        && name
            .bytes()
            .all(|byte| is_plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && !name.ends_with(".git")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names() {
        let (longest, too_long) = ("x".repeat(100), "x".repeat(101));
        for name in ["a", "sample", "a.b_c-d", "0", "a..b", "git", &longest] {
            assert!(is_repository_name(name), "{name}");
        }
        for name in [
            "", "../x", "a.git", ".git", ".tmp", "A", "a/b", "a b", "ü", "-a", "_a", "a\0", "a\n", &too_long,
        ] {
            assert!(!is_repository_name(name), "{name:?}");
        }
    }
}
