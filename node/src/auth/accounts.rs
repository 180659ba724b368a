//! Opening accounts, signing in, and knowing who shows a token.
//!
//! Only the account calls wait for the store; [`Accounts::authenticate`] does so at most once for each player of another issuer,
//! and checking a token of ours never does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use prometheus::IntCounter;
use rookery_protocol::PlayerId;
use tokio_util::sync::CancellationToken;

use super::error::{AuthError, KeyError, TokenError};
use super::external::{External, ExternalOptions, Subject};
use super::key::TokenKeys;
use super::password::Passwords;
use super::revoked::Revoked;
use super::token::{
    ACCESS_LIFETIME, Identity, REFRESH_LIFETIME, RESUME_LIFETIME, RefreshToken, ResumeToken, Tokens, hash,
};
use crate::store::{
    Account, AccountOutcome, CredentialKind, NewAccount, NewCredential, NewFamily, OnExisting, Player, Rotation,
    ShownToken, Store, StoreError,
};

const NAME_LEN_MAX: usize = 32;
const PASSWORD_LEN: std::ops::RangeInclusive<usize> = 8..=128;
const DEVICE_LEN_MAX: usize = 128;

/// How often the revocations of other nodes are read.
const READ_REVOCATIONS_EVERY: Duration = Duration::from_secs(2);

/// A revocation's time is that of its statement and it is seen at its commit: read again what is this much older. A
/// transaction lives for three seconds at most.
const REVOCATIONS_OVERLAP_MS: u64 = 10_000;

const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// A client whose answer to a refresh was lost may ask once more within this time; later, the old token counts as stolen.
const REFRESH_REPEAT_WITHIN: Duration = Duration::from_secs(30);

/// Subjects of another issuer whose players are remembered; beyond it, all are forgotten and asked for again.
const KNOWN_SUBJECTS_MAX: usize = 100_000;

/// Addresses whose allowance is remembered. Quiet ones are forgotten first.
const KNOWN_ADDRESSES_MAX: usize = 100_000;

/// Who may have an account (`auth.registration`).
#[derive(Debug, Clone)]
pub enum Policy {
    Open,
    /// Who has an account signs in; nobody gets a new one.
    Closed,
    /// Tokens of another issuer count, and only those.
    External(ExternalOptions),
}

/// How accounts are kept.
pub struct AuthOptions {
    pub keys: TokenKeys,
    pub policy: Policy,
    /// Account calls for each address (`limits.accounts`).
    pub quota: Quota,
    /// Counts the calls beyond it.
    pub rate_limited: IntCounter,
}

/// What a client gets who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tickets {
    pub player: Player,
    pub access_token: String,
    pub refresh_token: String,
    pub expires_in: Duration,
}

/// The accounts of this node's cluster.
pub struct Accounts {
    store: Store,
    tokens: Tokens,
    revoked: Revoked,
    passwords: Passwords,
    policy: OpenPolicy,
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    rate_limited: IntCounter,
    clock: DefaultClock,
}

enum OpenPolicy {
    Open,
    Closed,
    External {
        keys: External,
        known: Mutex<HashMap<String, Player>>,
    },
}

/// Why accounts cannot be kept; the node does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Hashing(#[from] AuthError),
}

impl Accounts {
    /// Prepares the keys and reads the revocations.
    pub async fn open(store: Store, options: AuthOptions) -> Result<Arc<Self>, OpenError> {
        let policy = match &options.policy {
            Policy::Open => OpenPolicy::Open,
            Policy::Closed => OpenPolicy::Closed,
            Policy::External(external) => OpenPolicy::External {
                keys: External::open(external)?,
                known: Mutex::default(),
            },
        };
        let accounts = Self {
            store,
            tokens: Tokens::new(&options.keys),
            revoked: Revoked::new(RESUME_LIFETIME),
            passwords: Passwords::new()?,
            policy,
            limiter: RateLimiter::keyed(options.quota),
            rate_limited: options.rate_limited,
            clock: DefaultClock::default(),
        };
        accounts.read_revocations(0).await?;
        Ok(Arc::new(accounts))
    }

    /// Keeps the revocations fresh until told to stop.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut since_ms = 0;
        let mut swept_at = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(READ_REVOCATIONS_EVERY) => {}
            }
            match self.read_revocations(since_ms).await {
                Ok(as_of_ms) => since_ms = as_of_ms.saturating_sub(REVOCATIONS_OVERLAP_MS),
                // The store's own watch says that it is away; the next reading begins where the last one ended.
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "revocations not read"),
            }
            if swept_at.elapsed() > SWEEP_EVERY {
                swept_at = Instant::now();
                self.revoked.forget_old(swept_at);
                self.limiter.retain_recent();
                let keep_ms = u64::try_from(RESUME_LIFETIME.as_millis()).expect("a day is short");
                if let Err(error) = self.store.sweep_tokens(keep_ms).await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "tokens not swept");
                }
            }
        }
    }

    async fn read_revocations(&self, since_ms: u64) -> Result<u64, StoreError> {
        let revocations = self.store.revocations_since(since_ms).await?;
        self.revoked.add(revocations.families, Instant::now());
        Ok(revocations.as_of_ms)
    }

    /// Who shows this access token: ours, or one of another issuer where those count.
    pub async fn authenticate(&self, token: &str) -> Result<Identity, AuthError> {
        match &self.policy {
            OpenPolicy::Open | OpenPolicy::Closed => Ok(self.verify(token)?),
            OpenPolicy::External { keys, known } => {
                let subject = keys.check(token)?;
                let player = self.player_of(subject, known).await?;
                Ok(Identity {
                    player: player.id,
                    name: player.name,
                    family: None,
                })
            }
        }
    }

    /// Who shows this access token of ours. Never waits.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.unless_revoked(self.tokens.check_access(token, unix_s())?)
    }

    /// Makes a resume token.
    pub fn resume_token(&self, token: &ResumeToken) -> String {
        self.tokens.resume(token, unix_s())
    }

    /// What a resume token says. Never waits.
    pub fn verify_resume(&self, token: &str) -> Result<ResumeToken, TokenError> {
        let token = self.tokens.check_resume(token, unix_s())?;
        self.unless_revoked(token.identity.clone())?;
        Ok(token)
    }

    /// Whether this sign-in was ended. Sessions that are open already go on; no new one opens with its tokens.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        identity
            .family
            .as_deref()
            .is_some_and(|family| self.revoked.contains(family))
    }

    fn unless_revoked(&self, identity: Identity) -> Result<Identity, TokenError> {
        if self.is_revoked(&identity) {
            return Err(TokenError::Revoked);
        }
        Ok(identity)
    }

    /// Counts a call of this address, or says when the next one is welcome.
    pub(super) fn admit(&self, address: IpAddr) -> Result<(), AuthError> {
        let address = subscriber(address);
        self.limiter.check_key(&address).map_err(|not_until| {
            self.rate_limited.inc();
            AuthError::RateLimited {
                retry: not_until.wait_time_from(self.clock.now()),
            }
        })?;
        if self.limiter.len() > KNOWN_ADDRESSES_MAX {
            self.limiter.retain_recent();
        }
        Ok(())
    }

    /// Signs a guest in: the same device is the same player.
    pub async fn guest(&self, device: Option<&str>, name: Option<&str>) -> Result<Tickets, AuthError> {
        let name = name.map(checked_name).transpose()?;
        if device.is_some_and(|device| device.is_empty() || device.chars().count() > DEVICE_LEN_MAX) {
            return Err(AuthError::BadRequest(format!(
                "device must have 1 to {DEVICE_LEN_MAX} characters"
            )));
        }
        let device = device.map(|device| hash(b"device", device.as_bytes()));
        match &self.policy {
            OpenPolicy::Open => {}
            OpenPolicy::External { .. } => return Err(EXTERNAL),
            OpenPolicy::Closed => {
                let known = match &device {
                    Some(device) => self.store.find_credential(CredentialKind::Device, device).await?,
                    None => None,
                };
                let known = known.ok_or(CLOSED)?;
                return self.sign_in(known.player).await;
            }
        }
        let player = new_player()?;
        let credential = device.map(|key| NewCredential {
            kind: CredentialKind::Device,
            key,
            secret: None,
        });
        let rename = name.is_some();
        let name = name.unwrap_or_else(|| guest_name(player));
        let request = Opening {
            player,
            name,
            rename,
            credential,
            on_existing: OnExisting::Adopt,
        };
        self.open_account(request).await
    }

    /// Opens an account with a name of its own and a password.
    pub async fn register(&self, name: &str, password: &str) -> Result<Tickets, AuthError> {
        match &self.policy {
            OpenPolicy::Open => {}
            OpenPolicy::Closed => return Err(CLOSED),
            OpenPolicy::External { .. } => return Err(EXTERNAL),
        }
        let name = checked_name(name)?;
        check_password(password)?;
        let key = name.to_lowercase();
        // Hashing is the expensive part; a name that is taken need not get that far.
        if self
            .store
            .find_credential(CredentialKind::Password, &key)
            .await?
            .is_some()
        {
            return Err(AuthError::NameTaken);
        }
        let secret = self.passwords.hash(password.to_owned()).await?;
        let credential = NewCredential {
            kind: CredentialKind::Password,
            key,
            secret: Some(secret),
        };
        let request = Opening {
            player: new_player()?,
            name,
            rename: false,
            credential: Some(credential),
            on_existing: OnExisting::Refuse,
        };
        self.open_account(request).await
    }

    /// Signs in by name and password.
    pub async fn login(&self, name: &str, password: &str) -> Result<Tickets, AuthError> {
        if let OpenPolicy::External { .. } = &self.policy {
            return Err(EXTERNAL);
        }
        let name = checked_name(name)?;
        check_password(password)?;
        let known = self
            .store
            .find_credential(CredentialKind::Password, &name.to_lowercase())
            .await?;
        let stored = known.as_ref().and_then(|known| known.secret.clone());
        let fits = self.passwords.fits(password.to_owned(), stored).await?;
        match known {
            Some(known) if fits => self.sign_in(known.player).await,
            _ => Err(AuthError::WrongCredentials),
        }
    }

    /// Replaces a refresh token by its successor. One that was replaced before ends the whole sign-in: somebody has a copy.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tickets, AuthError> {
        let shown = RefreshToken::parse(refresh_token)?;
        let hash = shown.hash();
        let successor = self.tokens.successor(&shown);
        let other = self.tokens.other_successor(&shown);
        let other_hash = other.as_ref().map(RefreshToken::hash);
        let asked = ShownToken {
            family: &shown.family,
            hash: &hash,
            other_successor: other_hash.as_deref(),
            repeat_within_ms: u64::try_from(REFRESH_REPEAT_WITHIN.as_millis()).expect("half a minute is short"),
        };
        match self.store.rotate(&asked, &new_family(&successor)).await? {
            Rotation::Done(player) => Ok(self.tickets(player, &successor)),
            Rotation::DoneByOther(player) => {
                Ok(self.tickets(player, &other.expect("it is what the store was asked about")))
            }
            Rotation::Unknown => Err(TokenError::Expired.into()),
            Rotation::Reused => {
                tracing::info!("a refresh token was shown twice, its sign-in is revoked");
                self.revoked.add([shown.family], Instant::now());
                Err(TokenError::Revoked.into())
            }
        }
    }

    /// Ends a sign-in: its refresh token at once, its access tokens on all nodes within seconds.
    pub async fn logout(&self, refresh_token: &str) -> Result<(), AuthError> {
        let shown = RefreshToken::parse(refresh_token)?;
        self.end_family(&shown.family).await
    }

    /// Ends the sign-in that an access token comes from.
    pub async fn logout_access(&self, access_token: &str) -> Result<(), AuthError> {
        match self.verify(access_token)?.family {
            Some(family) => self.end_family(&family).await,
            None => Ok(()),
        }
    }

    async fn end_family(&self, family: &str) -> Result<(), AuthError> {
        self.store.revoke_family(family).await?;
        self.revoked.add([family.to_owned()], Instant::now());
        Ok(())
    }

    async fn open_account(&self, opening: Opening) -> Result<Tickets, AuthError> {
        let token = RefreshToken::first().map_err(|_| AuthError::Hashing)?;
        let outcome = self
            .store
            .open_account(opening.into_account(Some(new_family(&token))))
            .await?;
        match outcome {
            AccountOutcome::Opened(account) => Ok(self.tickets(account.player, &token)),
            AccountOutcome::Taken => Err(AuthError::NameTaken),
        }
    }

    async fn sign_in(&self, player: Player) -> Result<Tickets, AuthError> {
        let token = RefreshToken::first().map_err(|_| AuthError::Hashing)?;
        self.store.start_family(player.id, &new_family(&token)).await?;
        Ok(self.tickets(player, &token))
    }

    fn tickets(&self, player: Player, refresh: &RefreshToken) -> Tickets {
        let identity = Identity {
            player: player.id,
            name: player.name.clone(),
            family: Some(refresh.family.clone()),
        };
        Tickets {
            access_token: self.tokens.access(&identity, unix_s()),
            refresh_token: refresh.to_text(),
            expires_in: ACCESS_LIFETIME,
            player,
        }
    }

    /// The player whom another issuer's subject is, made on first sight.
    async fn player_of(&self, subject: Subject, known: &Mutex<HashMap<String, Player>>) -> Result<Player, AuthError> {
        let key = format!("{} {}", subject.issuer, subject.subject);
        if let Some(player) = known.lock().expect("no holder panics").get(&key) {
            return Ok(player.clone());
        }
        let player = new_player()?;
        // The other issuer's names follow its own rules; what does not fit ours is not worth a refusal.
        let name = subject.name.as_deref().and_then(|name| checked_name(name).ok());
        let opening = Opening {
            player,
            rename: name.is_some(),
            name: name.unwrap_or_else(|| guest_name(player)),
            credential: Some(NewCredential {
                kind: CredentialKind::External,
                key: key.clone(),
                secret: None,
            }),
            on_existing: OnExisting::Adopt,
        };
        match self.store.open_account(opening.into_account(None)).await? {
            AccountOutcome::Opened(Account { player, .. }) => {
                let mut known = known.lock().expect("no holder panics");
                if known.len() >= KNOWN_SUBJECTS_MAX {
                    known.clear();
                }
                known.insert(key, player.clone());
                Ok(player)
            }
            AccountOutcome::Taken => Err(AuthError::NameTaken),
        }
    }
}

const CLOSED: AuthError = AuthError::Forbidden("this server takes no new players");
const EXTERNAL: AuthError = AuthError::Forbidden("this server's players sign in elsewhere");

/// An account to be opened, without its tokens.
struct Opening {
    player: PlayerId,
    name: String,
    rename: bool,
    credential: Option<NewCredential>,
    on_existing: OnExisting,
}

impl Opening {
    fn into_account(self, family: Option<NewFamily>) -> NewAccount {
        NewAccount {
            player: self.player,
            name: self.name,
            rename: self.rename,
            credential: self.credential,
            on_existing: self.on_existing,
            family,
        }
    }
}

fn new_family(token: &RefreshToken) -> NewFamily {
    NewFamily {
        family: token.family.clone(),
        hash: token.hash(),
        expires_in_ms: u64::try_from(REFRESH_LIFETIME.as_millis()).expect("a month is short"),
    }
}

fn new_player() -> Result<PlayerId, AuthError> {
    let random = super::key::random::<16>().map_err(|_| AuthError::Hashing)?;
    Ok(PlayerId::from_parts(unix_s() * 1000, u128::from_le_bytes(random)))
}

/// The last digits of an id are random, the first ones are its time.
fn guest_name(player: PlayerId) -> String {
    let id = player.to_string();
    format!("guest-{}", &id[id.len() - 6..])
}

fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The name without the space around it, if people can see it and tell it from others.
pub(super) fn checked_name(name: &str) -> Result<String, AuthError> {
    let name = name.trim();
    let len = name.chars().count();
    if len == 0 || len > NAME_LEN_MAX {
        return Err(AuthError::BadRequest(format!(
            "name must have 1 to {NAME_LEN_MAX} visible characters"
        )));
    }
    if name.chars().any(is_invisible) {
        return Err(AuthError::BadRequest("name must have only visible characters".into()));
    }
    Ok(name.to_owned())
}

/// Controls, and what changes how its neighbours look without looking like anything itself: joiners, direction marks, fillers.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        || (c.is_whitespace() && c != ' ')
}

pub(super) fn check_password(password: &str) -> Result<(), AuthError> {
    let (min, max) = (PASSWORD_LEN.start(), PASSWORD_LEN.end());
    if PASSWORD_LEN.contains(&password.chars().count()) {
        Ok(())
    } else {
        Err(AuthError::BadRequest(format!(
            "password must have {min} to {max} characters"
        )))
    }
}

/// Who pays for an address: an IPv6 subscriber has a whole /64.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests;
