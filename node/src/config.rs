//! Configuration: a file, then the environment, then flags, read into [`Config`] with every fault reported at once.
//!
//! It says what an operator wants and nothing about the running node: no socket is bound and no directory made here. A key that
//! is not known is refused, and one that this build does not act on yet gives a warning: none is silently ignored.

mod faults;
mod raw;
mod reference;
mod rules;
mod sections;
mod setting;
mod tables;
mod units;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use rookery_protocol::NodeName;

pub use faults::{Fault, Faults, Problem, Source};
pub use rules::SECRET_BYTES_MIN;
pub use sections::{
    AdvertiseSection, AuthSection, ClusterSection, Config, DrainSection, LimitsSection, ListenSection, MatchesSection,
    ModulesSection, NodeSection, OpsSection, Profile, QueuesSection, Registration, Service, StoreSection,
    TelemetrySection, TlsSection, WorldsSection,
};
pub use setting::KeyDoc;
pub use tables::{Create, Module, Queue, Skill, World, Zone};
pub use units::{Rate, Secret, Size, parse_duration, print_duration};

use raw::Raw;
use setting::Setting;

/// Where a configuration is read from; later sources win.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    pub environment: Vec<(OsString, OsString)>,
    /// Keys that flags stand for, with their text.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// The process's environment and this file.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            environment: std::env::vars_os().collect(),
            flags: Vec::new(),
        }
    }
}

impl Config {
    /// Reads all sources, and checks them together.
    pub fn load(sources: Sources) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let mut written = match &sources.file {
            Some(path) => Raw::from_file(path, &mut faults),
            None => Raw::empty(),
        };
        written.overlay_environment(sources.environment, &mut faults);
        for (key, text) in sources.flags {
            written.set(key, Source::Flag, text);
        }
        let mut config = Self::read(written, "", &mut faults).unwrap_or_default();
        rules::read_secret_files(&mut config, &mut faults);
        rules::check(&config, &mut faults);
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// Reads a file's text alone, without the rules: nothing that it names is looked at.
    pub(crate) fn of_text(text: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let written = Raw::from_text(text, &Source::File(None), &mut faults);
        let config = Self::read(written, "", &mut faults).unwrap_or_default();
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// The effective configuration as TOML, with what is worked out from other keys filled in and secrets masked.
    pub fn to_toml(&self) -> String {
        let mut config = self.clone();
        config.node.name = Some(self.node_name());
        config.store.url = Some(mask_password(&self.store_url()));
        let table = match config.show() {
            Some(toml::Value::Table(table)) => table,
            Some(_) | None => toml::Table::new(),
        };
        toml::to_string_pretty(&table).expect("tables of strings, numbers and lists are TOML")
    }

    /// Every key, with its default and what it does.
    pub fn reference() -> Vec<KeyDoc> {
        let mut keys = Vec::new();
        Self::default().list("", "", &mut keys);
        keys
    }

    /// `node.name`, or the host name.
    pub fn node_name(&self) -> NodeName {
        let configured = self.node.name.clone().or_else(host_name);
        configured.unwrap_or_else(|| "node".parse().expect("four letters are a node name"))
    }

    /// The files of `cluster.ca`, `cluster.cert` and `cluster.key`, when they are set.
    pub fn certificate_files(&self) -> Option<rookery_gossip::CertificateFiles> {
        let cluster = &self.cluster;
        match (&cluster.ca, &cluster.cert, &cluster.key) {
            (Some(ca), Some(cert), Some(key)) => Some(rookery_gossip::CertificateFiles {
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
            }),
            _ => None,
        }
    }

    /// `store.url`, or the SQLite file in the data directory.
    pub fn store_url(&self) -> String {
        let default = || format!("sqlite://{}", self.node.data_dir.join("rookery.db").display());
        self.store.url.clone().unwrap_or_else(default)
    }

    /// What other nodes are told of the peer listener, once it is bound.
    pub fn advertised_peer(&self, bound: SocketAddr) -> String {
        self.advertise
            .peer
            .clone()
            .unwrap_or_else(|| reachable(bound).to_string())
    }

    /// What players and other nodes are told of the client listener, once it is bound: `host:port`, or the URL that
    /// `advertise.client` gives.
    pub fn advertised_client(&self, bound: SocketAddr) -> String {
        self.advertise
            .client
            .clone()
            .unwrap_or_else(|| reachable(bound).to_string())
    }

    /// The same as a URL for pages and clients, `http://host:port` or `https://host:port`.
    pub fn client_url(&self, bound: SocketAddr) -> String {
        let advertised = self.advertised_client(bound);
        if let Some((scheme, rest)) = advertised.split_once("://") {
            let scheme = match scheme {
                "ws" => "http",
                "wss" => "https",
                other => other,
            };
            return format!("{scheme}://{}", rest.trim_end_matches('/'));
        }
        let scheme = if self.tls.cert.is_some() { "https" } else { "http" };
        format!("{scheme}://{advertised}")
    }
}

/// Every key path that may be written.
fn known_keys() -> Vec<String> {
    Config::reference().into_iter().map(|key| key.path).collect()
}

/// The host's name, when it is a name that a node may have.
fn host_name() -> Option<NodeName> {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = from_kernel.or_else(|_| {
        // No /proc outside Linux; the command is in every Unix.
        let output = std::process::Command::new("hostname").output()?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&output.stdout).into_owned())
    });
    name.ok()?.trim().parse().ok()
}

/// An address that others can dial: where `0.0.0.0` or `[::]` was bound, the one that this machine would send from.
fn reachable(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // Connecting a UDP socket sends nothing; it only asks the routing table. 192.0.2.1 is reserved for documentation.
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    let ip = probe().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
    SocketAddr::new(ip, bound.port())
}

/// A database URL may carry a password: `postgres://user:password@host/database`.
fn mask_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.into();
    };
    let Some((user, host)) = rest.rsplit_once('@') else {
        return url.into();
    };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{}@{host}", Secret::MASK),
        None => url.into(),
    }
}
