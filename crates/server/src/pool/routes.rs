//! Where the connections of a sandbox lead that changes hands: its link is open before anybody knows whose it will be.

use crate::sandbox::RouteHandler;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

/// Routes that can be led elsewhere.
#[derive(Clone)]
pub struct SwitchedRoutes {
    current: Arc<RwLock<RouteHandler>>,
    /// Ends connections of the first routes that must not go on.
    first: CancellationToken,
}

impl SwitchedRoutes {
    /// `end` is cancelled when they are left.
    pub fn new(first: RouteHandler, end: CancellationToken) -> Self {
        Self {
            current: Arc::new(RwLock::new(first)),
            first: end,
        }
    }

    /// From the next connection on.
    pub fn switch(&self, routes: RouteHandler) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = routes;
        self.first.cancel();
    }

    /// For whoever starts the sandbox.
    pub fn handler(&self) -> RouteHandler {
        let current = self.current.clone();
        Arc::new(move |route, stream| {
            let handler = current.read().unwrap_or_else(PoisonError::into_inner).clone();
            handler(route, stream);
        })
    }
}
