//! What can go wrong with accounts and tokens, and how clients hear it.

use std::path::PathBuf;
use std::time::Duration;

use rookery_protocol::ErrorCode;
use rookery_protocol::error::Refusal;

use crate::store::StoreError;

/// Why a token does not count. Clients hear `unauthenticated` for all of these, with this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not one of ours")]
    Malformed,
    #[error("the token's signature does not fit")]
    Forged,
    #[error("the token has expired")]
    Expired,
    #[error("the token was revoked")]
    Revoked,
}

/// A refusal of an account call. Nothing was changed, except that a store that did not answer may have done its part.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    #[error("{0}")]
    BadRequest(String),
    #[error("the request is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Which of the two was wrong is not told.
    #[error("name or password is wrong")]
    WrongCredentials,
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("the name is taken")]
    NameTaken,
    #[error("too many account calls")]
    RateLimited { retry: Duration },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("hashing failed")]
    Hashing,
}

impl AuthError {
    /// The refusal as clients see it; nothing internal is in it.
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::BadRequest(_) => ErrorCode::BadMessage,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Token(_) | Self::WrongCredentials => ErrorCode::Unauthenticated,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::NameTaken => ErrorCode::NameTaken,
            Self::RateLimited { retry } => {
                let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX).max(1);
                return Refusal::new(ErrorCode::RateLimited, self.to_string()).with("retry_ms", retry_ms);
            }
            Self::Store(error) => {
                return match error {
                    StoreError::Unavailable { .. }
                    | StoreError::Unreachable { .. }
                    | StoreError::Busy
                    | StoreError::Collision { .. } => {
                        Refusal::new(ErrorCode::Unavailable, "accounts are not available now, try again")
                    }
                    StoreError::Statement { .. }
                    | StoreError::Damaged { .. }
                    | StoreError::Url { .. }
                    | StoreError::TooNew { .. } => Refusal::new(ErrorCode::Internal, "something went wrong here"),
                };
            }
            Self::Hashing => return Refusal::new(ErrorCode::Internal, "something went wrong here"),
        };
        Refusal::new(code, self.to_string())
    }
}

/// Why keys for tokens cannot be had; the node does not start.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read or write {path}")]
    File {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{path} is damaged: it must hold 32 bytes; remove it to get a new key, which ends all sign-ins")]
    Damaged { path: PathBuf },
    #[error("the system gives no random bytes")]
    NoRandom,
    #[error("auth.key: {path}: {problem}")]
    External { path: PathBuf, problem: String },
}
