//! Names to addresses, for the proxy alone: a sandbox resolves nothing itself.

use async_trait::async_trait;
use std::io;
use std::net::IpAddr;

/// Resolves names.
#[async_trait]
pub trait Resolver: Send + Sync + std::fmt::Debug {
    /// Every address of a name, in the order in which to try them, or an error if it has none. May take as long as it wants:
    /// the caller has a deadline, and drops the future then.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the operating system, with its hosts file.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// A resolver for tests that answers what it was told to.
pub mod fake {
    use super::{IpAddr, Resolver, async_trait, io};
    use std::collections::{HashMap, VecDeque};
    use std::sync::Mutex;

    /// Answers by name, in turn; the last answer is repeated. Names it was not told do not exist.
    #[derive(Debug, Default)]
    pub struct FakeResolver(Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>);

    impl FakeResolver {
        /// Adds one answer of a name. Panics on what is no address: this is for tests.
        #[expect(clippy::expect_used, reason = "for tests")]
        pub fn answer(self, name: &str, addresses: &[&str]) -> Self {
            let addresses = addresses
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect();
            let mut answers = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            answers.entry(name.to_owned()).or_default().push_back(addresses);
            drop(answers);
            self
        }
    }

    #[async_trait]
    impl Resolver for FakeResolver {
        async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
            let mut answers = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let turns = answers.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            match turns.len() {
                0 | 1 => turns.front().cloned(),
                _ => turns.pop_front(),
            }
            .ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }
}
