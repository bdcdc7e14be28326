//! Receives the bodies of requests: places by size, time limits, and a minimum rate.
//!
//! Bodies are in memory, so few large ones are received at the same time. A client that sends slowly must not keep a place that
//! others wait for.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

use super::server::RequestError;
use crate::http::places::{ClientKey, Place, PlaceLimits, Places};

/// Time limit for a whole body.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// Time limit for the next part of a body: a silent client must not block other clients.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for a place. Longer than [`SILENCE_LIMIT`], so that silent clients lose their places first.
const PLACE_LIMIT: Duration = Duration::from_secs(15);
/// Fewest bytes a second, after [`GRACE`]. A picture of 100 kB takes 25 s at this rate.
const MIN_RATE: f64 = 4096.0;
/// Time in which the rate of a body is not checked.
const GRACE: Duration = Duration::from_secs(4);

/// The places for bodies of a size.
struct SizeClass {
    /// Most bytes of a body.
    bytes: u64,
    places: Arc<Places>,
}

/// The places for bodies.
pub(super) struct UploadPlaces(Vec<SizeClass>);

impl UploadPlaces {
    pub(super) fn new() -> Self {
        let class = |bytes, total, per_client, device, reserved| SizeClass {
            bytes,
            places: Places::new(PlaceLimits {
                total,
                per_client,
                device,
                reserved,
            }),
        };
        Self(vec![
            class(256 << 10, 40, 8, 32, 8),
            class(8 << 20, 4, 2, 3, 1),
            // Also bodies that do not say how long they are.
            class(u64::MAX, 2, 1, 1, 0),
        ])
    }

    /// A place for a body of this length; `None`: it is not known.
    ///
    /// # Errors
    /// There was no place in time.
    pub(super) async fn take(&self, client: ClientKey, length: Option<u64>) -> Result<Place, RequestError> {
        let places = self.places(length).ok_or(RequestError::Full)?;
        tokio::time::timeout(PLACE_LIMIT, places.take(client))
            .await
            .map_err(|_| RequestError::Full)
    }

    fn places(&self, length: Option<u64>) -> Option<&Arc<Places>> {
        let length = length.unwrap_or(u64::MAX);
        let class = self.0.iter().find(|class| length <= class.bytes)?;
        Some(&class.places)
    }
}

/// Reads a whole body, at most `most` bytes.
///
/// # Errors
/// [`RequestError`]; `failed` makes it from an error of the connection.
pub(super) async fn read_all<E>(
    parts: impl Stream<Item = Result<Bytes, E>>,
    most: usize,
    failed: impl Fn(E) -> RequestError,
) -> Result<Vec<u8>, RequestError> {
    let mut parts = pin!(parts);
    let mut whole = Vec::new();
    let begun = Instant::now();
    while let Some(part) = next_part(parts.next()).await? {
        let part = part.map_err(&failed)?;
        if whole.len() + part.len() > most {
            return Err(RequestError::TooLarge(most));
        }
        whole.extend_from_slice(&part);
        if is_too_slow(whole.len(), begun.elapsed()) {
            return Err(RequestError::request(format!(
                "the body arrives too slowly; accepted: at least {} kB a second",
                MIN_RATE / 1024.0
            )));
        }
    }
    Ok(whole)
}

fn is_too_slow(bytes: usize, elapsed: Duration) -> bool {
    (bytes as f64) < MIN_RATE * elapsed.saturating_sub(GRACE).as_secs_f64()
}

/// Waits for the next part of a body for at most [`SILENCE_LIMIT`].
pub(super) async fn next_part<T>(part: impl Future<Output = T>) -> Result<T, RequestError> {
    let silent = |_| RequestError::request(format!("no part of the body arrived for {} s", SILENCE_LIMIT.as_secs()));
    tokio::time::timeout(SILENCE_LIMIT, part).await.map_err(silent)
}

/// Waits for a whole body for at most [`BODY_LIMIT`].
pub(super) async fn with_body_limit<T>(reading: impl Future<Output = T>) -> Result<T, RequestError> {
    tokio::time::timeout(BODY_LIMIT, reading)
        .await
        .map_err(|_| RequestError::request(format!("the body did not arrive within {} s", BODY_LIMIT.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_drips_is_too_slow_and_a_slow_network_is_not() {
        for (bytes, seconds, is_slow) in [
            (0, 3, false),
            (6, 6, true),
            (40, 20, true),
            (100_000, 25, false),
            (50_000_000, 59, false),
        ] {
            assert_eq!(
                is_too_slow(bytes, Duration::from_secs(seconds)),
                is_slow,
                "{bytes} in {seconds} s"
            );
        }
    }

    #[test]
    fn slow_clients_of_one_address_do_not_hold_the_places_of_others() {
        let uploads = UploadPlaces::new();
        let client = |last: u8| ClientKey::of([192, 0, 2, last].into());
        let mut held = Vec::new();
        for length in [Some(1 << 20), Some(50 << 20), None] {
            let places = uploads.places(length).unwrap();
            while let Ok(place) = places.try_take(client(1)) {
                held.push(place);
            }
            assert!(places.try_take(client(2)).is_ok(), "{length:?}");
        }
        assert!(held.len() < 4);
        let small = uploads.places(Some(1000)).unwrap();
        assert!(
            small.try_take(client(1)).is_ok(),
            "small bodies do not wait for large ones"
        );
    }
}
