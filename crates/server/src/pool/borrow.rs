//! Sandboxes for somebody's own use beside sessions, such as a shell: one that waits if there is one, else one that is started. Nothing
//! that is done in them is kept.

use super::book::Kind;
use super::keeper::{WarmPool, end, prepare, version};
use crate::image::environment_of;
use crate::sandbox::Sandbox;
use crate::session::make_room;
use crate::session::running::exhausted;
use crate::session::services::SessionServices;
use greenroom_protocol::client::problem::Problem;
use greenroom_protocol::id::{PersonId, SandboxId};
use greenroom_stdx::id::fresh_bits;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A sandbox that somebody has. It fetches from the repository and pushes nothing.
pub struct Borrowed {
    pub sandbox: Arc<dyn Sandbox>,
    id: SandboxId,
    _place: Place,
}

impl Borrowed {
    /// Ends it, and removes its files.
    pub async fn end(self, services: &SessionServices) {
        end(services, &self.id).await;
    }
}

/// Counts as a sandbox that runs, until it is dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    pub(super) fn take(taken: &Arc<AtomicUsize>) -> Self {
        taken.fetch_add(1, Ordering::SeqCst);
        Self(taken.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl WarmPool {
    /// A sandbox of an environment, ready to be used.
    pub async fn borrow(
        &self,
        services: &Arc<SessionServices>,
        kind: &Kind,
        person: &PersonId,
    ) -> Result<Borrowed, Problem> {
        let environment = environment_of(services, &kind.repository, &kind.branch).await?;
        if let Some(claimed) = self.claim(services, kind, &environment, person).await {
            return Ok(Borrowed {
                sandbox: claimed.sandbox.clone(),
                id: claimed.id.clone(),
                _place: self.place(),
            });
        }
        let place = self.place();
        let max_running = services.running.max_running();
        while services.running.count() + self.count() > max_running {
            if !self.make_room(services).await && !make_room(services, services.running.idle()).await? {
                return Err(exhausted(max_running));
            }
        }
        let image = version(services, kind, &environment).await?.1;
        let id = SandboxId::from_bits(fresh_bits());
        match prepare(services, &id, kind, &environment, image).await {
            Ok(held) => Ok(Borrowed {
                sandbox: held.into_sandbox(),
                id,
                _place: place,
            }),
            Err(problem) => {
                end(services, &id).await;
                Err(problem)
            }
        }
    }
}
