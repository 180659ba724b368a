//! Waiting for something that will be true, without guessing how long it takes.

use std::time::Duration;

use tokio::time::Instant;

/// How long tests wait for what takes milliseconds on an idle machine. Test machines are not idle.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until the condition holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    until(what, async || condition().await.then_some(())).await;
}

/// Waits until there is a value, and returns it.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// As [`until`], with a deadline that is itself the promise under test.
///
/// # Panics
/// When there is no value in time.
pub async fn until_within<T>(within: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(
            since.elapsed() < within,
            "within {within:?} it did not come true that {what}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
