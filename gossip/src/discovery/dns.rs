//! Looks names up. Nothing is cached here: when to ask again is decided in `discovery.rs`, and a remembered "no such name" would hide
//! the name's first appearance.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tokio::time::timeout;

use super::Target;

/// How long one query waits for its server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a whole look-up may take, search domains and SRV targets included.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// The most addresses taken from one look-up.
const ADDRESSES_MAX: usize = 256;

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
                Target::Host { host, port } => addresses(resolver, host, *port).await,
                Target::Service(name) => service(resolver, name).await,
            }
        };
        let mut found = timeout(LOOK_UP_TIMEOUT, looked_up)
            .await
            .map_err(|_| "the look-up took too long".to_owned())??;
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
    let records = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    let mut failed = None;
    for record in records.answers().iter().take(ADDRESSES_MAX) {
        let RData::SRV(service) = &record.data else {
            continue;
        };
        match addresses(resolver, &service.target.to_string(), service.port).await {
            Ok(addresses) => found.extend(addresses),
            // One record that leads nowhere does not spoil the others.
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}
