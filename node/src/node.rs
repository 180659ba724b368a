//! The composition root: opens what a node stands on, in order, wires the pieces together, and takes them down again.
//!
//! No rules here. A piece that ends by itself is a fault: it is named, and the node stops.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rookery_gossip::{Cluster, MemberState};
use rookery_protocol::NodeLife;
use rookery_protocol::client::ServerMessage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Accounts, AuthOptions, ExternalOptions, Policy, TokenKeys};
use crate::clock::boot_ms;
use crate::config::{Config, Profile, Registration};
use crate::gateway::affinity::Affinity;
use crate::gateway::handshake::Origins;
use crate::gateway::outbox::{Close, OutboxLimits};
use crate::gateway::settings::{Counters, Settings};
use crate::metrics::{MeshFigures, MeshLimit, Metrics, RateClass};
use crate::modules::signature::Keys;
use crate::modules::{Modules, Rules};
use crate::operations::Operator;
use crate::owner::Executor;
use crate::owner::desk::Desk;
use crate::peer::{Ear, MODULES_GROUP};
use crate::services::Services;
use crate::session::host::Host;
use crate::session::hub::{Hub, HubParts};
use crate::session::listener::Listener;
use crate::store::{self, ModuleLimits, OPERATIONS, Store, StoreOptions};
use crate::takeover;
use crate::wasm::{Engine, EngineConfig};

/// A node that nobody answers is a cluster of its own after this long.
const JOIN_WITHIN: Duration = Duration::from_secs(5);

/// How often a node looks for matches that it is to start: the message that said so is only a hint.
const STARTING_EVERY: Duration = Duration::from_secs(1);

/// A match that has been starting for less long is being started.
const STARTING_FOR_MS: u64 = 5_000;

/// How often the load that other nodes see is brought up to date.
const LOAD_EVERY: Duration = Duration::from_secs(2);

/// How long stopping may take before what is left is dropped.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Where a node can be reached, once it listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub name: String,
    pub client: SocketAddr,
    pub peer: SocketAddr,
    pub ops: SocketAddr,
}

/// The sockets of a node. The caller binds, so that tests take port 0.
#[derive(Debug)]
pub struct Listeners {
    pub client: TcpListener,
    pub peer: UdpSocket,
    pub ops: TcpListener,
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// Names the address and the key that set it.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let listen = &config.listen;
        let tcp = |key: &'static str, address: SocketAddr| async move {
            TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address} (listen.{key})"))
        };
        let peer =
            UdpSocket::bind(listen.peer).with_context(|| format!("cannot listen on {} (listen.peer)", listen.peer))?;
        Ok(Self {
            client: tcp("client", listen.client).await?,
            peer,
            ops: tcp("ops", listen.ops).await?,
        })
    }

    fn addresses(&self, name: String) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            name,
            client: self.client.local_addr()?,
            peer: self.peer.local_addr()?,
            ops: self.ops.local_addr()?,
        })
    }
}

/// What a node is told from outside.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// Leave the cluster within `drain.deadline`, then end.
    pub drain: CancellationToken,
    /// End at once.
    pub end: CancellationToken,
}

/// Runs a node until it is told to end; `ready` is called once, when it takes players.
///
/// # Errors
/// What kept it from starting, or which piece of it ended by itself.
pub async fn run(config: Config, ready: impl FnOnce(&Addresses), orders: Orders) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&config).await?;
    let addresses = listeners.addresses(config.node_name().to_string())?;
    std::fs::create_dir_all(&config.node.data_dir)
        .with_context(|| format!("cannot create {} (node.data_dir)", config.node.data_dir.display()))?;
    let metrics = Metrics::new();
    let store = open_store(&config, &metrics).await?;
    let node = Node::start(config, listeners, &addresses, store, metrics, &orders.end).await;
    let node = match node {
        Ok(node) => node,
        Err(error) if orders.end.is_cancelled() => {
            tracing::info!(%error, "stopped while starting");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut node = node;
    ready(&addresses);
    let ended = node.live(&orders).await;
    node.stop().await;
    ended
}

async fn open_store(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Store> {
    metrics.store_operations(OPERATIONS);
    let observing = Arc::clone(metrics);
    let options = StoreOptions {
        observe: Some(Arc::new(move |operation, took| {
            observing.store_operation(operation, took)
        })),
        ..StoreOptions::default()
    };
    Ok(Store::open(&config.store_url(), options).await?)
}

/// A running node.
struct Node {
    hub: Arc<Hub>,
    tasks: TaskTracker,
    /// Ends every task; also when one of them ends by itself.
    stopping: CancellationToken,
    fault: tokio::sync::mpsc::Receiver<anyhow::Error>,
    /// Keeps this node in the group that hears of publications.
    _modules: rookery_gossip::Membership,
}

impl Node {
    async fn start(
        config: Config,
        listeners: Listeners,
        addresses: &Addresses,
        store: Store,
        metrics: Arc<Metrics>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let name = config.node_name();
        let registration = store::Registration {
            name: name.clone(),
            client: config.client_url(addresses.client),
            peer: config.advertised_peer(addresses.peer),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let lease_asked_ms = boot_ms();
        let generation = store
            .register_node(&registration)
            .await
            .context("cannot register the node in the store")?;
        let local = NodeLife { name, generation };
        let engine = Engine::new(EngineConfig {
            cache_dir: Some(config.node.data_dir.join("modules")),
        })?;
        let modules = Modules::new(engine, store.clone(), module_rules(&config), Arc::clone(&metrics));
        let hub = Hub::new(HubParts {
            local: local.clone(),
            config: Arc::clone(&config),
            store: store.clone(),
            modules,
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
            shutdown: stopping.clone(),
        });
        let threads = executor_threads(&config);
        let executor = Executor::start(threads, Desk::start(Arc::clone(&hub), threads), hub.fence(), &tasks)?;
        let Listeners { client, peer, ops } = listeners;
        let mesh = mesh_config(&config, &local, peer, addresses)?;
        let ear = Arc::new(Ear::new(Arc::clone(&hub)));
        let cluster = Cluster::start(mesh, ear, stopping.clone()).await?;
        hub.connect(executor, cluster.clone());
        hub.serve(Services::start(&hub));
        let membership = cluster
            .join(MODULES_GROUP)
            .context("cannot join the group of modules")?;

        let (fault, faults) = tokio::sync::mpsc::channel(8);
        let node = Self {
            hub: Arc::clone(&hub),
            tasks,
            stopping,
            fault: faults,
            _modules: membership,
        };
        let say =
            |cluster: &Cluster, key: &str, value: &str| cluster.set_fact(key, value).context("cannot state a fact");
        say(&cluster, "ep", &registration.client)?;
        say(&cluster, "ver", env!("CARGO_PKG_VERSION"))?;
        let accounts = Accounts::open(store.clone(), auth_options(&config, &metrics)?).await?;
        node.collect_metrics(&metrics);
        node.tend(&fault, accounts.clone(), lease_asked_ms);
        let routes = crate::ops::router(
            Arc::new(Operator::new(Arc::clone(&hub))),
            Arc::clone(&metrics),
            ops_token(&config),
        );
        node.piece(
            &fault,
            "the operators' listener",
            crate::ops::serve(ops, routes, node.stopping.clone()),
        );
        let settings = gateway_settings(&config, &metrics)?;
        let host = Arc::new(Host::new(Arc::clone(&hub), accounts.clone(), settings.heartbeat));
        let mut routes = crate::auth::routes(accounts);
        if config.node.demo_page {
            routes = routes
                .merge(crate::pages::routes())
                .merge(crate::pages::live::routes(Arc::clone(&hub)));
        }
        if config.node.playground {
            routes = routes.merge(crate::pages::playground::routes(Arc::clone(&hub)));
        }
        node.piece(
            &fault,
            "the client listener",
            crate::gateway::http::serve(client, host, routes, settings, node.stopping.clone()),
        );

        let join = node.become_ready(&cluster, &config);
        tokio::select! {
            joined = join => joined?,
            () = shutdown.cancelled() => anyhow::bail!("told to stop"),
        }
        Ok(node)
    }

    /// Runs a piece that must not end before the node does.
    fn piece<E: std::error::Error + Send + Sync + 'static>(
        &self,
        fault: &tokio::sync::mpsc::Sender<anyhow::Error>,
        what: &'static str,
        piece: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (fault, stopping) = (fault.clone(), self.stopping.clone());
        self.tasks.spawn(async move {
            let ended = piece.await;
            if !stopping.is_cancelled() {
                let error = match ended {
                    Ok(()) => anyhow::anyhow!("{what} ended by itself"),
                    Err(error) => anyhow::Error::new(error).context(format!("{what} failed")),
                };
                // Full: another fault stops the node already.
                let _ = fault.try_send(error);
            }
        });
    }

    /// The node's chores: its row, its load, its links, and matches that wait to be started.
    fn tend(&self, fault: &tokio::sync::mpsc::Sender<anyhow::Error>, accounts: Arc<Accounts>, lease_asked_ms: u64) {
        let hub = &self.hub;
        hub.spawn(Arc::clone(hub).run());
        self.tasks.spawn(accounts.run(self.stopping.clone()));
        let superseded = fault.clone();
        let name = hub.local().name.clone();
        hub.spawn(takeover::keep_lease(Arc::clone(hub), lease_asked_ms, move || {
            let error =
                anyhow::anyhow!("another process runs as node {name}: each needs a name of its own (node.name)");
            let _ = superseded.try_send(error);
        }));
        hub.spawn(takeover::adopt(Arc::clone(hub)));
        hub.spawn(crate::modules::task::run(hub.modules().clone()));
        let starting = Arc::clone(hub);
        hub.spawn(async move {
            loop {
                tokio::time::sleep(STARTING_EVERY).await;
                let Ok(rows) = starting.store().starting_of(starting.local(), 256).await else {
                    continue;
                };
                let now_ms = starting.unix_ms();
                for row in rows
                    .into_iter()
                    .filter(|row| row.created_at_ms + STARTING_FOR_MS < now_ms)
                {
                    Arc::clone(&starting).start_quietly(row).await;
                }
            }
        });
        let loaded = Arc::clone(hub);
        hub.spawn(async move {
            let mut said = None;
            loop {
                let load = quantised(loaded.executor().owned());
                if said != Some(load) {
                    match loaded.cluster().set_fact("load", &load.to_string()) {
                        Ok(()) => said = Some(load),
                        Err(error) => tracing::warn!(%error, "the load cannot be stated"),
                    }
                }
                tokio::time::sleep(LOAD_EVERY).await;
            }
        });
        let cluster = hub.cluster().clone();
        let (fault, stopping) = (fault.clone(), self.stopping.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                ended = cluster.closed() => drop(fault.try_send(anyhow::Error::new(ended).context("the mesh ended by itself"))),
            }
        });
    }

    fn collect_metrics(&self, metrics: &Arc<Metrics>) {
        let hub = Arc::downgrade(&self.hub);
        metrics.on_collect(move |metrics| {
            let Some(hub) = hub.upgrade() else { return };
            metrics.sessions.set(hub.session_count() as i64);
            let services = hub.services();
            metrics.players_online.set(services.presence.players() as i64);
            metrics.presence_watches.set(services.presence.watches() as i64);
            metrics.directory(&services.directory.stats());
            metrics
                .modules_compiled
                .set(hub.modules().compiled_digests().len() as i64);
            metrics.held_requests.set(hub.held_requests() as i64);
            metrics.chat_channels.set(hub.services().chat.open_count() as i64);
            metrics.leader.set(i64::from(hub.services().leader.term().is_some()));
            metrics.store_up.set(i64::from(*hub.store().up().borrow()));
            metrics.store_refusals(hub.store().refused_total());
            metrics.trace_failures(crate::traces::failed_total());
            let stats = hub.cluster().stats();
            let members = hub.cluster().members().borrow().clone();
            let states = [
                MemberState::Joining,
                MemberState::Ready,
                MemberState::Draining,
                MemberState::Leaving,
                MemberState::Suspect,
                MemberState::Dead,
            ];
            metrics.mesh(&MeshFigures {
                members: states
                    .iter()
                    .map(|state| (state.as_str(), members.count(*state) as u64))
                    .collect(),
                keys: stats.own_keys,
                gossip_lives: stats.gossip_lives,
                gossip_bytes: stats.gossip_bytes,
                peer_connections: stats.control_connections + stats.data_connections,
                messages_in: stats.messages_received_total,
                messages_out: stats.messages_sent_total,
                queue_dropped: stats.queue_full_total + stats.dropped_total,
                certificate_expiry_s: stats.certificate_expiry_s,
                limited: mesh_limited(&stats.limited_total),
                refused: stats.refused_total.secret
                    + stats.refused_total.authority
                    + stats.refused_total.cluster_name
                    + stats.refused_total.certificate
                    + stats.refused_total.superseded
                    + stats.refused_total.crowded,
                suspicions: stats.suspicions_total,
                false_suspicions: stats.false_suspicions_total,
                deaths: stats.deaths_total,
                self_late: stats.self_late_total,
                gossip_ticks: stats.gossip_ticks_total,
                gossip_ticks_late: stats.gossip_ticks_late_20ms_total,
                probes_direct: stats.probes_direct_total,
                probes_indirect: stats.probes_indirect_total,
                nacks_missed: stats.nacks_missed_total,
                local_health: stats.local_health,
                isolated: hub.cluster().is_isolated(),
                keys_deleted: stats.own_keys_deleted,
                gossip_refused: stats.gossip_refused_total,
                groups_in_gossip: stats.groups_in_gossip,
                groups_in_directory: stats.groups_in_directory,
                groups_refused: stats.groups_refused_total,
                group_watches: stats.groups_watched,
                group_unanswered: stats.group_unanswered_total,
                directory: stats.directory,
                seed_failures: stats.discovery_failures_seed_total,
                dns_failures: stats.discovery_failures_dns_total,
                rtts: stats.rtt.values().copied().collect(),
            });
        });
    }

    /// Waits until a peer answers or nobody does, buries our own earlier life, and says that we are ready.
    async fn become_ready(&self, cluster: &Cluster, config: &Config) -> anyhow::Result<()> {
        let hub = &self.hub;
        hub.bury_earlier_life()
            .await
            .context("cannot clear up after the node's earlier life")?;
        if !config.cluster.seeds.is_empty() || !config.cluster.dns.is_empty() {
            let mut members = cluster.members();
            let met = members.wait_for(|members| members.len() > 1);
            // Nobody within the time: this node is the first.
            let _ = tokio::time::timeout(JOIN_WITHIN, met).await;
        }
        hub.services().content.loaded().await;
        cluster.set_state(MemberState::Ready);
        hub.set_joined();
        hub.spawn(crate::drain::task::run(Arc::clone(hub)));
        Ok(())
    }

    /// Waits until the node is told to end, has drained, or a piece of it ends by itself.
    async fn live(&mut self, orders: &Orders) -> anyhow::Result<()> {
        let hub = Arc::clone(&self.hub);
        let drained = async {
            tokio::select! {
                () = orders.drain.cancelled() => hub.draining().order(hub.config().drain.deadline),
                () = hub.draining().done() => {}
            }
            hub.draining().done().await;
        };
        tokio::select! {
            () = orders.end.cancelled() => Ok(()),
            () = drained => Ok(()),
            Some(fault) = self.fault.recv() => Err(fault),
        }
    }

    /// Takes the node down: players are told, peers are told, and what runs here is ended.
    async fn stop(mut self) {
        let hub = Arc::clone(&self.hub);
        let nodes = hub.other_urls();
        for session in hub.all_sessions() {
            let reason = if hub.draining().is_ordered() {
                "draining"
            } else {
                "shutdown"
            };
            let (reason, nodes) = (reason.into(), nodes.clone());
            session.send(
                None,
                &ServerMessage::SessionGoingAway {
                    reason,
                    within_ms: 0,
                    nodes,
                },
            );
            session.outbox().close(Close::GOING_AWAY);
        }
        // What is saved goes on elsewhere; the rest ends with us, and who hears of it first does not matter.
        let stopped = async {
            hub.services().leader.resign().await;
            if let Err(error) = takeover::hand_back(&hub).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the matches of this node could not be handed back: they wait for its lease to end"
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Err(error) = hub.services().records.write_all().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the records of this node's matches do not name all players"
                );
            }
            hub.cluster().leave().await;
            if let Err(error) = hub
                .store()
                .lose_matches_of(&hub.local().name, hub.local().generation)
                .await
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the matches of this node could not be marked as lost"
                );
            }
        };
        if tokio::time::timeout(STOP_WITHIN, stopped).await.is_err() {
            tracing::warn!("leaving the cluster took too long");
        }
        self.stopping.cancel();
        self.fault.close();
        let executor = hub.executor().clone();
        let threads = tokio::task::spawn_blocking(move || executor.stop());
        self.tasks.close();
        let ended = async {
            self.tasks.wait().await;
            let _ = threads.await;
            hub.store().close().await;
        };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
    }
}

fn mesh_limited(counts: &rookery_gossip::LimitedCounts) -> Vec<(MeshLimit, u64)> {
    vec![
        (MeshLimit::Proved, counts.proved),
        (MeshLimit::Busy, counts.busy),
        (MeshLimit::TooFast, counts.too_fast),
        (MeshLimit::Gossip, counts.gossip),
        (MeshLimit::Requests, counts.requests),
        (MeshLimit::Slow, counts.slow),
        (MeshLimit::Malformed, counts.malformed),
    ]
}

/// One thread a processor, unless the configuration says otherwise.
fn executor_threads(config: &Config) -> usize {
    match config.matches.threads {
        0 => std::thread::available_parallelism().map_or(1, |count| count.get()),
        threads => threads as usize,
    }
}

/// In steps of about a tenth, so that gossip does not carry every match that comes and goes.
fn quantised(load: u64) -> u64 {
    let step = (load / 10).max(1);
    load / step * step
}

fn module_rules(config: &Config) -> Rules {
    Rules {
        keys: Keys::new(config.modules.keys.clone()),
        bytes_max: config.limits.module.bytes(),
        limits: ModuleLimits {
            names_max: config.limits.modules,
            versions_max: config.limits.module_versions,
        },
        ahead_bytes_max: config.limits.modules_ahead.bytes(),
    }
}

pub(crate) fn ops_token(config: &Config) -> Option<&str> {
    config.ops.token.as_ref().map(|token| token.expose())
}

fn auth_options(config: &Config, metrics: &Metrics) -> anyhow::Result<AuthOptions> {
    let cluster = &config.cluster;
    let keys = match &cluster.secret {
        Some(secret) => {
            let next = cluster.secret_next.as_ref().map(|next| next.expose().as_bytes());
            TokenKeys::of_cluster(secret.expose().as_bytes(), next)
        }
        None => TokenKeys::of_node(&config.node.data_dir)?,
    };
    let auth = &config.auth;
    let policy = match auth.registration {
        Registration::Open => Policy::Open,
        Registration::Closed => Policy::Closed,
        Registration::External => Policy::External(ExternalOptions {
            key_file: auth
                .key
                .clone()
                .context("auth.registration = external needs auth.key")?,
            issuer: auth
                .issuer
                .clone()
                .context("auth.registration = external needs auth.issuer")?,
            audience: auth.audience.clone(),
        }),
    };
    Ok(AuthOptions {
        keys,
        policy,
        quota: quota(config.limits.accounts),
        rate_limited: metrics.rate_limited(RateClass::Accounts),
    })
}

fn quota(rate: crate::config::Rate) -> governor::Quota {
    let positive = |count: u32| std::num::NonZeroU32::new(count).unwrap_or(std::num::NonZeroU32::MIN);
    governor::Quota::per_second(positive(rate.per_second)).allow_burst(positive(rate.burst))
}

fn rate(rate: crate::config::Rate) -> crate::gateway::limits::Rate {
    crate::gateway::limits::Rate {
        per_second: rate.per_second,
        burst: rate.burst,
    }
}

fn gateway_counters(metrics: &Metrics) -> Counters {
    Counters {
        messages_in: metrics.client_messages_in.clone(),
        messages_out: metrics.client_messages_out.clone(),
        slow_closed: metrics.client_slow_closed.clone(),
        rate_limited_inputs: metrics.rate_limited(RateClass::Inputs),
        rate_limited_control: metrics.rate_limited(RateClass::Control),
        rate_limited_chat: metrics.rate_limited(RateClass::Chat),
        connections: metrics.connections.clone(),
    }
}

fn gateway_settings(config: &Config, metrics: &Metrics) -> anyhow::Result<Settings> {
    let tls = match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => {
            let read =
                |path: &std::path::Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
            Some(crate::gateway::tls::server_config(&read(cert)?, &read(key)?)?)
        }
        (None, _) | (_, None) => None,
    };
    Ok(Settings {
        origins: Origins::of(config.listen.origins.clone()),
        frame_bytes_max: config.limits.frame.as_usize(),
        inputs: rate(config.limits.inputs),
        control: rate(config.limits.control),
        chat: rate(config.limits.chat),
        connections_max: config.limits.connections as usize,
        tls,
        outbox: OutboxLimits {
            bytes: config.limits.outbox.as_usize(),
            ..OutboxLimits::default()
        },
        counters: gateway_counters(metrics),
        affinity: (config.listen.affinity_cookie != "off").then(|| {
            let is_secure = config.tls.cert.is_some();
            Affinity::new(&config.listen.affinity_cookie, config.node_name().as_str(), is_secure)
        }),
        ..Settings::default()
    })
}

fn mesh_config(
    config: &Config,
    local: &NodeLife,
    listen: UdpSocket,
    addresses: &Addresses,
) -> anyhow::Result<rookery_gossip::Config> {
    let cluster = &config.cluster;
    let secret = match &cluster.secret {
        Some(secret) => rookery_gossip::Secret::new(secret.expose())?,
        // Alone: nobody else can know it, so nobody else gets in.
        None => rookery_gossip::Secret::new(rand::random::<[u8; 32]>())?,
    };
    let secret_next = cluster
        .secret_next
        .as_ref()
        .map(|next| rookery_gossip::Secret::new(next.expose()))
        .transpose()?;
    Ok(rookery_gossip::Config {
        node: local.name.as_str().parse()?,
        generation: local.generation,
        cluster_name: cluster.name.clone(),
        secret,
        secret_next,
        certificates: config.certificate_files(),
        listen: listen.into(),
        advertise: config.advertised_peer(addresses.peer),
        seeds: cluster.seeds.clone(),
        dns: cluster.dns.clone(),
        poll_interval: cluster.poll_interval,
        profile: match cluster.profile {
            Profile::Default => rookery_gossip::Profile::Default,
            Profile::Lan => rookery_gossip::Profile::Lan,
        },
        dns_server: cluster.dns_resolver,
        limits: rookery_gossip::Limits::default(),
    })
}
