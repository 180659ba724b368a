//! Looks names up. Nothing is cached here: when to ask again is decided in `discovery.rs`, and a remembered "no such name" would hide
//! the name's first appearance.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::Target;

/// How long one query waits for its server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a whole look-up may take, search domains and SRV targets included.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

const TOO_LONG: &str = "the look-up took too long";

/// The most addresses taken from one look-up; an answer over TCP has no room for more. Which of them are used is decided in
/// `discovery.rs`.
const ADDRESSES_MAX: usize = 4_096;

/// How many hosts of SRV records are looked up at once. One after the other a hundred of them would take longer than a look-up may.
const HOSTS_AT_ONCE: usize = 16;

/// A resolver, or why there is none; then every look-up says so.
pub(crate) struct Resolver(Result<TokioResolver, String>);

impl Resolver {
    /// Uses the system's servers, or the one given.
    pub(crate) fn new(server: Option<SocketAddr>) -> Self {
        Self(build(server).map_err(|error| format!("the resolver cannot be set up: {error}")))
    }

    /// The addresses that a source stands for now; never none of them.
    pub(crate) async fn look_up(&self, target: &Target) -> Result<Vec<SocketAddr>, String> {
        let resolver = match (target, &self.0) {
            (Target::Address(addr), _) => return Ok(vec![*addr]),
            (_, Ok(resolver)) => resolver,
            (_, Err(why)) => return Err(why.clone()),
        };
        let looked_up = async {
            match target {
                Target::Address(addr) => Ok(vec![*addr]),
                Target::Host { host, port } => timeout(LOOK_UP_TIMEOUT, addresses(resolver, host, *port))
                    .await
                    .unwrap_or_else(|_| Err(TOO_LONG.to_owned())),
                Target::Service(name) => service(resolver, name).await,
            }
        };
        let mut found = looked_up.await?;
        found.sort_unstable();
        found.dedup();
        found.truncate(ADDRESSES_MAX);
        if found.is_empty() {
            Err("the name has no addresses".into())
        } else {
            Ok(found)
        }
    }
}

fn build(server: Option<SocketAddr>) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            let config = ResolverConfig::from_name_servers(vec![config]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.cache_size = 0;
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 2;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

async fn addresses(resolver: &TokioResolver, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
    Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Every target of every record: priority and weight choose among servers, and we want to meet all nodes.
async fn service(resolver: &TokioResolver, name: &str) -> Result<Vec<SocketAddr>, String> {
    let deadline = Instant::now() + LOOK_UP_TIMEOUT;
    let records = timeout_at(deadline, resolver.srv_lookup(name))
        .await
        .map_err(|_| TOO_LONG.to_owned())?
        .map_err(|error| error.to_string())?;
    let mut hosts = records.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(service) => Some((service.target.to_string(), service.port)),
        _ => None,
    });
    let (mut found, mut failed) = (Vec::new(), None);
    let mut looking = JoinSet::new();
    loop {
        while looking.len() < HOSTS_AT_ONCE
            && found.len() < ADDRESSES_MAX
            && let Some((host, port)) = hosts.next()
        {
            let resolver = resolver.clone();
            looking.spawn(async move { addresses(&resolver, &host, port).await });
        }
        match timeout_at(deadline, looking.join_next()).await {
            Ok(Some(Ok(Ok(addresses)))) => found.extend(addresses),
            // One record that leads nowhere does not spoil the others.
            Ok(Some(Ok(Err(why)))) => failed = Some(why),
            Ok(Some(Err(error))) => failed = Some(error.to_string()),
            Ok(None) => break,
            Err(_) => {
                failed = Some(TOO_LONG.to_owned());
                break;
            }
        }
    }
    match failed {
        Some(why) if found.is_empty() => Err(why),
        _ => Ok(found),
    }
}
