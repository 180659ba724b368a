//! What the gateway is told when it starts: its limits and times, the origins it serves, and the counters it moves. Defaults are
//! those of the configuration's reference; nothing here is read from a file.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::affinity::Affinity;
use super::handshake::Origins;
use super::limits::Rate;
use super::outbox::OutboxLimits;

/// One gateway's settings, shared by all its connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Browser origins that are served (`listen.origins`).
    pub origins: Origins,
    /// The largest inbound message, in bytes (`limits.frame`).
    pub frame_bytes_max: usize,
    /// Match inputs of one connection (`limits.inputs`).
    pub inputs: Rate,
    /// All its other requests (`limits.control`).
    pub control: Rate,
    /// Its chat lines (`limits.chat`).
    pub chat: Rate,
    /// How often a connection is pinged; one that is silent for two of these is closed.
    pub heartbeat: Duration,
    /// How long a new socket may take to say `session.open`.
    pub open_within: Duration,
    pub outbox: OutboxLimits,
    /// Sockets open at once, HTTP ones among them; more are closed as they come.
    pub connections_max: usize,
    /// Serve over TLS directly; see [`super::tls::server_config`].
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub counters: Counters,
    /// The cookie for load balancers (`listen.affinity_cookie`), if there is to be one.
    pub affinity: Option<Affinity>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            origins: Origins::default(),
            frame_bytes_max: 64 * 1024,
            inputs: Rate {
                per_second: 300,
                burst: 600,
            },
            control: Rate {
                per_second: 100,
                burst: 200,
            },
            chat: Rate {
                per_second: 10,
                burst: 20,
            },
            heartbeat: Duration::from_secs(15),
            open_within: Duration::from_secs(10),
            outbox: OutboxLimits::default(),
            connections_max: 100_000,
            tls: None,
            counters: Counters::default(),
            affinity: None,
        }
    }
}

/// The counters that the gateway moves. Clones share; whoever exports metrics gives its own in.
#[derive(Debug, Clone)]
pub struct Counters {
    /// `rookery_client_messages_total{direction="in"}`
    pub messages_in: IntCounter,
    /// `rookery_client_messages_total{direction="out"}`
    pub messages_out: IntCounter,
    /// `rookery_client_slow_closed_total`
    pub slow_closed: IntCounter,
    /// `rookery_rate_limited_total{class="inputs"}`
    pub rate_limited_inputs: IntCounter,
    /// `rookery_rate_limited_total{class="control"}`
    pub rate_limited_control: IntCounter,
    /// `rookery_rate_limited_total{class="chat"}`
    pub rate_limited_chat: IntCounter,
    /// `rookery_connections`
    pub connections: IntGauge,
}

impl Default for Counters {
    /// Counters that nobody exports.
    fn default() -> Self {
        let counter = |name| IntCounter::new(name, "not exported").expect("the name is a metric name");
        Self {
            messages_in: counter("messages_in"),
            messages_out: counter("messages_out"),
            slow_closed: counter("slow_closed"),
            rate_limited_inputs: counter("rate_limited_inputs"),
            rate_limited_control: counter("rate_limited_control"),
            rate_limited_chat: counter("rate_limited_chat"),
            connections: IntGauge::new("connections", "not exported").expect("the name is a metric name"),
        }
    }
}
