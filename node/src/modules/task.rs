//! Compiles published modules ahead of their first use, one at a time, until the node stops. What is compiled when is decided in
//! `modules::ahead`; the node is ready without it.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rookery_protocol::Digest;
use rookery_protocol::error::ErrorCode;

use super::ahead::{Ahead, Head, Outcome};
use super::{Modules, Purpose, unavailable};
use crate::clock::boot_ms;
use crate::metrics::{ModuleFault, ModuleWork};

/// How often a node asks whether something was published that it was not told of: its membership of the group that is told may be
/// younger than what others know. The question is answered from one small table.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// How often what is published is looked at whether or not something is new, to let go what no match uses any more.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Keeps the newest version of each module compiled.
pub async fn run(modules: Modules) {
    let mut ahead = Ahead::new(modules.inner.rules.ahead_bytes_max);
    let (mut seen, mut looked, mut announced) = (None, Instant::now(), false);
    loop {
        // Asked before the look: what comes in between is looked at twice, and not missed.
        let newest = modules.inner.store.newest_publication().await.ok();
        let is_news = newest.is_some() && newest != seen;
        if is_news || announced || looked.elapsed() >= LOOK_EVERY {
            match look(&modules, &mut ahead).await {
                Ok(()) => (seen, looked) = (newest, Instant::now()),
                Err(code) => tracing::debug!(%code, "what is published is not known now"),
            }
        }
        announced = compile(&modules, &mut ahead).await == Then::LookAgain;
        modules.inner.metrics.modules_waiting.set(ahead.waiting_len() as i64);
        if announced {
            continue;
        }
        let mut pause = ASK_EVERY.mul_f64(rand::random_range(0.75..1.25));
        if let Some(wake_ms) = ahead.next_wake_ms() {
            pause = pause.min(Duration::from_millis(wake_ms.saturating_sub(boot_ms())));
        }
        announced = tokio::select! {
            () = modules.inner.announced.notified() => true,
            () = tokio::time::sleep(pause) => false,
        };
    }
}

async fn look(modules: &Modules, ahead: &mut Ahead) -> Result<(), ErrorCode> {
    let rows = modules.inner.store.list_module_heads().await;
    let rows = rows.map_err(|error| unavailable(&error).code)?;
    let heads = rows.iter().filter(|row| modules.trust(row).is_ok());
    let heads = heads.map(|row| Head {
        digest: row.digest,
        bytes: row.bytes,
        published_at_ms: row.published_at_ms,
    });
    ahead.published(heads.collect(), |digest| modules.is_compiled(digest));
    modules.let_go(|digest| ahead.wants(digest));
    Ok(())
}

/// What comes after compiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Wait,
    /// Something was announced meanwhile, and comes before what is still to be compiled.
    LookAgain,
}

async fn compile(modules: &Modules, ahead: &mut Ahead) -> Then {
    while let Some(digest) = ahead.next(boot_ms()) {
        modules.inner.metrics.modules_waiting.set(ahead.waiting_len() as i64);
        let outcome = compile_one(modules, digest).await;
        ahead.tried(boot_ms(), digest, outcome);
        if modules.inner.announced.notified().now_or_never().is_some() {
            return Then::LookAgain;
        }
    }
    Then::Wait
}

async fn compile_one(modules: &Modules, digest: Digest) -> Outcome {
    match modules.load_for(digest, Purpose::NewMatch, ModuleWork::Ahead).await {
        Ok(module) => {
            tracing::debug!(module = module.manifest().name, %digest, "a module is compiled ahead of its use");
            Outcome::Ready
        }
        Err((ModuleFault::Invalid, refusal)) => {
            tracing::warn!(%digest, %refusal, "a published module does not compile here");
            Outcome::Hopeless
        }
        Err((ModuleFault::Unsigned | ModuleFault::Damaged | ModuleFault::Unavailable, _)) => Outcome::Failed,
    }
}
