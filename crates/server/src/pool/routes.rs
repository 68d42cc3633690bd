//! Where the connections of a sandbox lead that changes hands: its link is open before anybody knows whose it will be.

use crate::sandbox::RouteHandler;
use std::sync::{Arc, PoisonError, RwLock};

/// Routes that can be led elsewhere.
#[derive(Clone)]
pub struct SwitchedRoutes(Arc<RwLock<RouteHandler>>);

impl SwitchedRoutes {
    pub fn new(first: RouteHandler) -> Self {
        Self(Arc::new(RwLock::new(first)))
    }

    /// From the next connection on.
    pub fn switch(&self, routes: RouteHandler) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// For whoever starts the sandbox.
    pub fn handler(&self) -> RouteHandler {
        let current = self.0.clone();
        Arc::new(move |route, stream| {
            let handler = current.read().unwrap_or_else(PoisonError::into_inner).clone();
            handler(route, stream);
        })
    }
}
