//! Hashing passwords: slow on purpose, so it runs beside the IO threads, a few at a time, and what would wait too long is
//! refused.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use std::time::Duration;
use tokio::sync::Semaphore;

use super::error::AuthError;
use super::key::random;

/// Hashes at a time. One takes about 30 ms of a core and 19 MiB; two leave cores for matches.
const RUNNING_MAX: usize = 2;

/// Callers at a time, running or waiting: about half a second of work.
const CALLERS_MAX: usize = 32;

const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Passwords {
    running: Semaphore,
    callers: Semaphore,
    /// Checked when the name is unknown, so that the time of the answer does not tell.
    nobody: String,
}

impl Passwords {
    pub(super) fn new() -> Result<Self, AuthError> {
        Ok(Self {
            running: Semaphore::new(RUNNING_MAX),
            callers: Semaphore::new(CALLERS_MAX),
            nobody: hash(b"nobody")?,
        })
    }

    /// The hash to store.
    pub(super) async fn hash(&self, password: String) -> Result<String, AuthError> {
        self.slowly(move || hash(password.as_bytes())).await
    }

    /// Whether the password fits the hash; false when there is none, after the same work.
    pub(super) async fn fits(&self, password: String, stored: Option<String>) -> Result<bool, AuthError> {
        let exists = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.clone());
        self.slowly(move || {
            let parsed = PasswordHash::new(&stored).map_err(|_| AuthError::Hashing)?;
            Ok(Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && exists)
        })
        .await
    }

    async fn slowly<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let _caller = self
            .callers
            .try_acquire()
            .map_err(|_| AuthError::RateLimited { retry: RETRY })?;
        let _turn = self.running.acquire().await.expect("never closed");
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| AuthError::Hashing)?
    }
}

fn hash(password: &[u8]) -> Result<String, AuthError> {
    let salt = random::<16>().map_err(|_| AuthError::Hashing)?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| AuthError::Hashing)?;
    let hash = Argon2::default()
        .hash_password(password, &salt)
        .map_err(|_| AuthError::Hashing)?;
    Ok(hash.to_string())
}
