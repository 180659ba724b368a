//! Making and checking tokens: pure, given the time.
//!
//! Access and resume tokens are JWTs (HS256) under keys of their own, so that neither passes for the other, and every node with
//! the cluster secret can check them. Refresh tokens are opaque: a family and a secret that only its hash in the store knows.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::{digest, hmac};
use rookery_protocol::{PlayerId, SessionId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{KeyError, TokenError};
use super::key::{TokenKeys, derive, random};

/// How long an access token counts. Clients refresh it, and a revocation has to be remembered for this long.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// How long a session may be resumed by its resume token alone.
pub(super) const RESUME_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a refresh token counts when it is not used.
pub(super) const REFRESH_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Node clocks differ by this much at most; a token is not refused for that.
const LEEWAY_S: u64 = 5;

/// A token of ours is below 1 KiB; another issuer's may be longer. What is longer is not even decoded.
pub(super) const TOKEN_LEN_MAX: usize = 8 * 1024;

/// Who a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub player: PlayerId,
    pub name: String,
    /// The sign-in that the token comes from; none for tokens of another issuer.
    pub family: Option<String>,
}

/// What lets a session go on, on any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeToken {
    pub session: SessionId,
    pub identity: Identity,
    /// The attachment number of the socket that it was given to.
    pub attachment: u64,
}

#[derive(Serialize, Deserialize)]
struct AccessClaims {
    sub: PlayerId,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fam: Option<String>,
    iat: u64,
    exp: u64,
}

#[derive(Serialize, Deserialize)]
struct ResumeClaims {
    sid: SessionId,
    att: u64,
    #[serde(flatten)]
    access: AccessClaims,
}

/// The keys, ready for use.
pub struct Tokens {
    access: Purpose,
    resume: Purpose,
    refresh: hmac::Key,
    refresh_next: Option<hmac::Key>,
    validation: Validation,
}

/// The keys of one kind of token: the first signs, all of them check.
struct Purpose {
    sign: EncodingKey,
    check: Vec<DecodingKey>,
}

impl Purpose {
    fn new(keys: &TokenKeys, purpose: &[u8]) -> Self {
        let current = derive(&keys.current, purpose);
        let mut check = vec![DecodingKey::from_secret(&current)];
        check.extend(keys.next.map(|next| DecodingKey::from_secret(&derive(&next, purpose))));
        Self {
            sign: EncodingKey::from_secret(&current),
            check,
        }
    }

    fn issue<C: Serialize>(&self, claims: &C) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.sign).expect("claims are plain data")
    }

    fn check<C: DeserializeOwned>(&self, token: &str, validation: &Validation) -> Result<C, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::Malformed);
        }
        let mut refused = TokenError::Malformed;
        for key in &self.check {
            match jsonwebtoken::decode::<C>(token, key, validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => {
                    use jsonwebtoken::errors::ErrorKind;
                    if matches!(error.kind(), ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm) {
                        refused = TokenError::Forged;
                    }
                }
            }
        }
        Err(refused)
    }
}

impl Tokens {
    pub fn new(keys: &TokenKeys) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The time is given, not read; see `alive`.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let refresh = |key: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &derive(key, b"refresh"));
        Self {
            access: Purpose::new(keys, b"access"),
            resume: Purpose::new(keys, b"resume"),
            refresh: refresh(&keys.current),
            refresh_next: keys.next.as_ref().map(|next| refresh(next)),
            validation,
        }
    }

    /// An access token that counts from now (Unix seconds).
    pub fn access(&self, identity: &Identity, now_s: u64) -> String {
        self.access.issue(&AccessClaims::new(identity, now_s, ACCESS_LIFETIME))
    }

    /// Who an access token stands for.
    pub fn check_access(&self, token: &str, now_s: u64) -> Result<Identity, TokenError> {
        let claims: AccessClaims = self.access.check(token, &self.validation)?;
        claims.alive(now_s)
    }

    /// A resume token that counts from now (Unix seconds).
    pub fn resume(&self, token: &ResumeToken, now_s: u64) -> String {
        self.resume.issue(&ResumeClaims {
            sid: token.session,
            att: token.attachment,
            access: AccessClaims::new(&token.identity, now_s, RESUME_LIFETIME),
        })
    }

    /// What a resume token says.
    pub fn check_resume(&self, token: &str, now_s: u64) -> Result<ResumeToken, TokenError> {
        let claims: ResumeClaims = self.resume.check(token, &self.validation)?;
        Ok(ResumeToken {
            session: claims.sid,
            identity: claims.access.alive(now_s)?,
            attachment: claims.att,
        })
    }

    /// The token that follows this one. It is computed, not drawn, so that a client whose answer was lost asks again and gets
    /// the same.
    pub(super) fn successor(&self, shown: &RefreshToken) -> RefreshToken {
        successor(&self.refresh, shown)
    }

    /// The one that a node computes which signs with our other secret, while the secret is being replaced: a client whose answer was
    /// lost because that node restarted asks here.
    pub(super) fn other_successor(&self, shown: &RefreshToken) -> Option<RefreshToken> {
        let key = self.refresh_next.as_ref()?;
        Some(successor(key, shown))
    }
}

fn successor(key: &hmac::Key, shown: &RefreshToken) -> RefreshToken {
    RefreshToken {
        family: shown.family.clone(),
        secret: BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(key, shown.to_text().as_bytes())),
    }
}

impl AccessClaims {
    fn new(identity: &Identity, now_s: u64, lifetime: Duration) -> Self {
        Self {
            sub: identity.player,
            name: identity.name.clone(),
            fam: identity.family.clone(),
            iat: now_s,
            exp: now_s + lifetime.as_secs(),
        }
    }

    fn alive(self, now_s: u64) -> Result<Identity, TokenError> {
        if now_s > self.exp.saturating_add(LEEWAY_S) {
            return Err(TokenError::Expired);
        }
        Ok(Identity {
            player: self.sub,
            name: self.name,
            family: self.fam,
        })
    }
}

/// A refresh token: `<family>.<secret>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefreshToken {
    pub(super) family: String,
    secret: String,
}

impl RefreshToken {
    /// The first token of a new family.
    pub(super) fn first() -> Result<Self, KeyError> {
        Ok(Self {
            family: BASE64_URL_SAFE_NO_PAD.encode(random::<16>()?),
            secret: BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?),
        })
    }

    pub(super) fn parse(text: &str) -> Result<Self, TokenError> {
        // 16 and 32 bytes are 22 and 43 digits.
        match text.split_once('.') {
            Some((family, secret)) if family.len() == 22 && secret.len() == 43 && text.is_ascii() => Ok(Self {
                family: family.into(),
                secret: secret.into(),
            }),
            _ => Err(TokenError::Malformed),
        }
    }

    pub(super) fn to_text(&self) -> String {
        format!("{}.{}", self.family, self.secret)
    }

    /// What the store keeps instead of the secret.
    pub(super) fn hash(&self) -> String {
        hash(b"refresh", self.secret.as_bytes())
    }
}

/// The hash of something secret and random enough that it need not be slow.
pub(super) fn hash(purpose: &[u8], secret: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(purpose);
    context.update(&[0]);
    context.update(secret);
    BASE64_URL_SAFE_NO_PAD.encode(context.finish())
}

#[cfg(test)]
mod tests;
