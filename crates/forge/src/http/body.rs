//! Bodies of requests and responses as streams of bytes.

use bytes::Bytes;
use futures_util::Stream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A request body.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A response body: a stream that ends when git has said everything, or with an error if it had to be cut.
#[derive(Debug)]
pub struct GitBody(Source);

#[derive(Debug)]
enum Source {
    Whole(Option<Bytes>),
    Live(mpsc::Receiver<io::Result<Bytes>>),
}

impl GitBody {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Source::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    pub(crate) fn live(chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self(Source::Live(chunks))
    }
}

impl Stream for GitBody {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.get_mut().0 {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Source::Live(chunks) => chunks.poll_recv(cx),
        }
    }
}
