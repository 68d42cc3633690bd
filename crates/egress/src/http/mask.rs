//! A response body in which echoed credentials are overwritten while it streams.

use crate::credential::{BodyMask, Credential, redact_headers};
use ::http::HeaderMap;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Same length, same order; the last bytes may come a piece later.
pub(crate) struct MaskedBody {
    inner: Incoming,
    mask: BodyMask,
    trailers: Option<HeaderMap>,
    has_ended: bool,
}

impl MaskedBody {
    pub fn new(inner: Incoming, credentials: &[Credential]) -> Self {
        Self {
            inner,
            mask: BodyMask::new(credentials),
            trailers: None,
            has_ended: false,
        }
    }
}

impl Body for MaskedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        while !self.has_ended {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        let ready = self.mask.push(&piece);
                        if !ready.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(ready.into()))));
                        }
                    }
                    Err(frame) => {
                        if let Ok(mut trailers) = frame.into_trailers() {
                            redact_headers(self.mask.credentials(), &mut trailers);
                            self.trailers = Some(trailers);
                        }
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.has_ended = true,
            }
        }
        let rest = self.mask.finish();
        if !rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(rest.into()))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }
}
