//! A server of one test: port 0, loopback, ends with the test's runtime.

use axum::Router;
use greenroom_sdk::{Client, Secret};

/// A client of a server with these routes.
pub async fn client_of(routes: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    Client::new(&url, Secret::new("the-token")).unwrap()
}
