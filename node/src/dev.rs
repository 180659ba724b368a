//! `rookery dev`: one node in this process with one module and the playground, gone without a trace when it ends. With an eye on the
//! component's file, each new version of it is checked, published, and put under the matches that run.
//!
//! What an operator may do to a node is done here as an operator does it, over its listener; nothing reaches into the node.

mod watch;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::cli::operator::{OpsClient, segment};
use crate::cli::{ready_line, say};
use crate::config::Config;
use crate::node::{Addresses, Orders};
use crate::ops::view::{MatchPage, Published, UpgradeRequest, Upgraded};
use crate::wasm::{Engine, EngineConfig};
use watch::Watched;

/// How often the file is looked at. A version is taken when two looks agree, so it is seen within twice this.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the node may take to end. Nothing of it is kept.
const END_WITHIN: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug)]
pub struct Options {
    pub module: PathBuf,
    pub watch: bool,
    pub config: Config,
}

/// Runs until a signal ends it (exit code 0), or it goes wrong (1).
///
/// # Errors
/// The component cannot be read or would be refused, or the node does not start or ends by itself.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { module, watch, config } = options;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let orders = Orders::default();
    let (tell, is_ready) = oneshot::channel();
    let author = Author::new(&config)?;
    let ready = |addresses: &Addresses| drop(tell.send(addresses.clone()));
    let mut node = std::pin::pin!(crate::node::run(config, ready, orders.clone()));
    let ended = tokio::select! {
        ended = &mut node => return ended.map_err(hint).and_then(|()| bail!("the node ended by itself")),
        ended = play(author, Watched::new(module), watch, is_ready) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    orders.end.cancel();
    let _ = tokio::time::timeout(END_WITHIN, node).await;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Who keeps the node from starting most often is another one.
fn hint(error: anyhow::Error) -> anyhow::Error {
    let is_taken = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::AddrInUse)
    };
    match error.chain().any(is_taken) {
        true => error.context("a port is taken; name another one with --port"),
        false => error,
    }
}

/// Publishes the module, and then each new version of it. Ends only when something goes wrong.
async fn play(
    author: Author,
    mut watched: Watched,
    watch: bool,
    is_ready: oneshot::Receiver<Addresses>,
) -> anyhow::Result<()> {
    let Ok(addresses) = is_ready.await else {
        return std::future::pending().await;
    };
    let (author, client) = (author.at(&addresses)?, addresses.client);
    let component = watched.read()?;
    let first = author.clone();
    if !tokio::task::spawn_blocking(move || first.publish(&component)).await?? {
        bail!("the component would be refused or fail its first player: see the errors above");
    }
    say(ready_line(&addresses));
    say(format!("open http://{client}/dev"));
    if !watch {
        return std::future::pending().await;
    }
    say(format!("watching {}", watched.path().display()));
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(component) = watched.look() else { continue };
        let author = author.clone();
        let released = tokio::task::spawn_blocking(move || author.release(&component)).await?;
        // The next version may do better.
        if let Err(error) = released {
            say(format!("{error:#}"));
        }
    }
}

/// What is done with a version of the module.
#[derive(Clone)]
struct Author {
    engine: Engine,
    token: Option<String>,
    client: Option<OpsClient>,
}

impl Author {
    fn new(config: &Config) -> anyhow::Result<Self> {
        // The node finds in the cache what the check has compiled.
        let cache_dir = Some(config.node.data_dir.join("modules"));
        Ok(Self {
            engine: Engine::new(EngineConfig { cache_dir })?,
            token: crate::node::ops_token(config).map(str::to_owned),
            client: None,
        })
    }

    fn at(self, addresses: &Addresses) -> anyhow::Result<Self> {
        let client = OpsClient::new(&addresses.ops.to_string(), self.token.clone())?;
        Ok(Self {
            client: Some(client),
            ..self
        })
    }

    fn client(&self) -> anyhow::Result<&OpsClient> {
        self.client.as_ref().context("the node is not there yet")
    }

    /// Publishes a component that passes the check; false when it does not, which is said.
    fn publish(&self, component: &[u8]) -> anyhow::Result<bool> {
        let report = self.engine.check(component);
        say(&report);
        if report.is_ok() {
            let _: Published = self.client()?.publish(component, None)?;
        }
        Ok(report.is_ok())
    }

    /// Publishes a new version and puts it under all matches of the module.
    fn release(&self, component: &[u8]) -> anyhow::Result<()> {
        let began = Instant::now();
        let report = self.engine.check(component);
        let Some(manifest) = report.manifest.as_ref().filter(|_| report.is_ok()) else {
            bail!("{report}\nthis version is not played; the matches go on as they are");
        };
        let client = self.client()?;
        let published: Published = client.publish(component, None)?;
        let (mut upgraded, mut cursor) = (0, None::<String>);
        loop {
            let after = cursor
                .map(|cursor| format!("&cursor={}", segment(&cursor)))
                .unwrap_or_default();
            let module = segment(&manifest.name);
            let page: MatchPage = client.get(&format!("/v1/matches?limit=100&module={module}{after}"))?;
            for game_match in page.matches.iter().filter(|found| found.digest != published.digest) {
                let path = format!("/v1/matches/{}/upgrade", game_match.id);
                let to = Some(published.digest.to_string());
                match client.post::<Upgraded>(&path, UpgradeRequest { to }) {
                    Ok(_) => upgraded += 1,
                    Err(error) => say(format!("match {} stays as it is: {error}", game_match.id)),
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let Published { name, version, digest } = published;
        let took_ms = began.elapsed().as_millis();
        say(format!(
            "{name} {version} {digest} is live; {upgraded} matches upgraded in {took_ms} ms"
        ));
        Ok(())
    }
}
