//! The loop around attempts, and what a provider's headers say about waiting. Knows nothing of HTTP but its headers.

use crate::client::{Options, RetryObserver};
use crate::failure::ModelFailure;
use crate::refusal;
use greenroom_stdx::backoff::Backoff;
use greenroom_stdx::clock::Clock;
use http::HeaderMap;
use std::time::{Duration, UNIX_EPOCH};

/// Runs `attempt` until it succeeds, fails for good, or `max_attempts` are used up.
///
/// Not an `AsyncFnMut`: its futures cannot be said to be `Send`, and callers run on a multi-threaded runtime.
pub(crate) async fn with_retries<T, Attempt>(
    options: &Options,
    on_retry: &RetryObserver,
    mut attempt: impl FnMut() -> Attempt,
) -> Result<T, ModelFailure>
where
    Attempt: Future<Output = Result<T, ModelFailure>> + Send,
{
    let mut number = 1;
    loop {
        let failure = match attempt().await {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        let Some(delay) = delay_before_next(options, number, &failure) else {
            return Err(failure);
        };
        on_retry(
            number,
            u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            &failure,
        );
        tokio::time::sleep(delay).await;
        number += 1;
    }
}

/// The wait after attempt `number` failed; `None` if it was the last.
fn delay_before_next(options: &Options, number: u32, failure: &ModelFailure) -> Option<Duration> {
    if number >= options.max_attempts || !failure.kind.is_retryable() || refusal::is_final(failure) {
        return None;
    }
    match failure.retry_after {
        Some(wanted) if wanted > options.max_retry_after => None,
        // A little more than asked, so that sessions that were refused together do not return together.
        Some(wanted) => Some(wanted + options.backoff.first.mul_f64(Backoff::random() / 2.0)),
        None => Some(options.backoff.delay(number, Backoff::random())),
    }
}

/// `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110, 10.2.3). A date in the past is zero.
pub(super) fn retry_after(headers: &HeaderMap, clock: &Clock) -> Option<Duration> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let seconds = |text: &str, unit: f64| {
        let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0)?;
        Duration::try_from_secs_f64(number * unit).ok()
    };
    if let Some(wait) = text("retry-after-ms").and_then(|text| seconds(text, 0.001)) {
        return Some(wait);
    }
    let value = text("retry-after")?;
    if let Some(wait) = seconds(value, 1.0) {
        return Some(wait);
    }
    let date = httpdate::parse_http_date(value)
        .ok()?
        .duration_since(UNIX_EPOCH)
        .ok()?;
    let now = Duration::from_millis(u64::try_from(clock.now_ms()).ok()?);
    Some(date.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;

    #[test]
    fn waits_are_read_from_headers() {
        // 2015-10-21 07:28:00 UTC.
        let clock = Clock::fixed(1_445_412_480_000);
        for (headers, expected_ms) in [
            (&[][..], None),
            (&[("retry-after", "2")], Some(2000)),
            (&[("retry-after", "1.5")], Some(1500)),
            (&[("retry-after", "2"), ("retry-after-ms", "250")], Some(250)),
            (&[("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")], Some(30_000)),
            (&[("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT")], Some(0)),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "1e300")], None),
            (&[("retry-after", "NaN")], None),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            assert_eq!(
                retry_after(&map, &clock),
                expected_ms.map(Duration::from_millis),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let options = Options::default();
        let after = |kind, seconds: Option<u64>, number| {
            let mut failure = ModelFailure::new(kind, "x");
            failure.retry_after = seconds.map(Duration::from_secs);
            delay_before_next(&options, number, &failure)
        };
        assert!(after(FailureKind::Overloaded, None, 1).is_some());
        assert!(after(FailureKind::Overloaded, None, options.max_attempts).is_none());
        assert!(after(FailureKind::InvalidRequest, None, 1).is_none());
        assert!(
            after(FailureKind::RateLimited, Some(2), 1).is_some_and(|wait| wait >= Duration::from_secs(2))
        );
        assert!(after(FailureKind::RateLimited, Some(3600), 1).is_none());
    }
}
