//! Names to addresses, for the proxy alone: a sandbox resolves nothing itself.

use async_trait::async_trait;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;

/// Resolves names.
#[async_trait]
pub trait Resolver: Send + Sync + std::fmt::Debug {
    /// Every address of a name, in the order in which to try them, or an error if it has none. May take as long as it wants:
    /// the caller has a deadline, and drops the future then.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Lookups of one resolver at once. Each holds a thread for as long as the slowest name server likes, whoever still waits.
const MAX_LOOKUPS: usize = 8;

/// Lookups of the whole process at once.
const MAX_LOOKUPS_OF_ALL: usize = 64;

/// The resolver of the operating system, with its hosts file. One for each sandbox: then names that take long hold up only
/// those who ask for them.
#[derive(Debug)]
pub struct SystemResolver {
    turns: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        static TURNS_OF_ALL: LazyLock<Arc<Semaphore>> =
            LazyLock::new(|| Arc::new(Semaphore::new(MAX_LOOKUPS_OF_ALL)));
        let name = name.to_owned();
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn_of_all = Arc::clone(&TURNS_OF_ALL).acquire_owned().await;
        let looking = tokio::task::spawn_blocking(move || {
            // Given back when the lookup is over, and not when nobody waits for it any more.
            let _turns = (turn, turn_of_all);
            let found = (name.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        });
        looking.await.map_err(io::Error::other)?
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_knows_its_own_name_and_says_what_it_does_not_know() {
        let resolver = SystemResolver::default();
        let found = resolver.resolve("localhost").await.unwrap();
        assert!(
            !found.is_empty() && found.iter().all(IpAddr::is_loopback),
            "{found:?}"
        );
        // Reserved for this by RFC 6761.
        assert!(resolver.resolve("name.invalid").await.is_err());
    }
}
