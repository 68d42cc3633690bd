//! Paths of this server's pages, in the one place that builds them. Parts are names that need no escaping in a path.

/// Page of a pull request.
pub fn pull_request(repository: &str, number: u64) -> String {
    format!("/repositories/{repository}/pull-requests/{number}")
}
