//! Finds what tests/peers/setup.sh prepared. A missing peer is said loudly, and fails where GREENROOM_REQUIRE_PEERS=1.

use std::path::PathBuf;

/// The path of a prepared peer; `None` (with a message) if it was not set up.
pub fn find(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("GREENROOM_TEST_CACHE")
        .map(PathBuf::from)
        .or_else(|| {
            let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
            let cache = std::env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(home)?;
            Some(cache.join("greenroom-ci"))
        });
    let path = cache
        .map(|cache| cache.join("llm-peers").join(name))
        .filter(|path| path.exists());
    if path.is_none() {
        eprintln!("SKIPPED-FEATURE: run crates/llm/tests/peers/setup.sh ({name} is missing)");
        let is_required = std::env::var("GREENROOM_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!is_required, "GREENROOM_REQUIRE_PEERS=1 and {name} is missing");
    }
    path
}
