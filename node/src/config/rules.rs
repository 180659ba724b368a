//! Rules over several keys, and what is read from files that keys name. Each broken rule is a fault of its own and names the
//! key to change.

use std::fs;
use std::path::{Path, PathBuf};

use rookery_gossip::{CertificateError, CertificateFiles};

use super::faults::Faults;
use super::sections::{Config, Registration};
use super::tables::{Queue, World};
use super::units::Secret;
use crate::ops::content::CONTENT_BYTES_MAX;
use crate::ops::modules::MODULE_BYTES_MAX;

/// The shortest cluster secret; shorter ones can be guessed.
pub const SECRET_BYTES_MIN: usize = 32;

/// Reads the files that hold secrets into the keys that they stand for.
pub(super) fn read_secret_files(config: &mut Config, faults: &mut Faults) {
    let cluster = &mut config.cluster;
    read_secret_file("cluster.secret", &mut cluster.secret, &cluster.secret_file, faults);
    read_secret_file(
        "cluster.secret_next",
        &mut cluster.secret_next,
        &cluster.secret_next_file,
        faults,
    );
    read_secret_file("ops.token", &mut config.ops.token, &config.ops.token_file, faults);
}

fn read_secret_file(key: &str, secret: &mut Option<Secret>, file: &Option<PathBuf>, faults: &mut Faults) {
    let Some(path) = file else { return };
    let file_key = format!("{key}_file");
    if secret.is_some() {
        faults.rule(&file_key, format!("{key} is set too; keep one of the two"));
        return;
    }
    match fs::read_to_string(path) {
        Ok(text) => *secret = Some(text.trim().into()),
        Err(error) => faults.rule(&file_key, format!("{} cannot be read: {error}", path.display())),
    }
}

/// Checks what no single key's type can.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    check_node(config, faults);
    check_cluster(config, faults);
    check_certificates(config, faults);
    check_listeners(config, faults);
    check_files(config, faults);
    check_limits(config, faults);
    check_module_keys(config, faults);
    if config.queues.reserve.is_zero() {
        faults.rule("queues.reserve", "must be longer than 0");
    }
    for (name, queue) in &config.queues.by_name {
        check_queue(&format!("queues.{name}"), queue, faults);
    }
    for (name, world) in &config.worlds.by_name {
        check_world(&format!("worlds.{name}"), world, faults);
    }
}

fn check_node(config: &Config, faults: &mut Faults) {
    let cookie = &config.listen.affinity_cookie;
    if cookie.is_empty()
        || !cookie
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    {
        faults.rule(
            "listen.affinity_cookie",
            format!("`{cookie}` is not a cookie's name: letters, digits, `-`, `_` and `.`; `off` sets none"),
        );
    }
    if config.node.name.is_none() && super::host_name().is_none() {
        faults.rule("node.name", "this host's name is unknown or no node name; set one");
    }
}

fn check_cluster(config: &Config, faults: &mut Faults) {
    let cluster = &config.cluster;
    for (key, secret) in [
        ("cluster.secret", &cluster.secret),
        ("cluster.secret_next", &cluster.secret_next),
    ] {
        let length = secret.as_ref().map(|secret| secret.expose().len());
        if let Some(length) = length.filter(|length| *length < SECRET_BYTES_MIN) {
            let remedy = "`rookery secret` prints a good one";
            faults.rule(
                key,
                format!("{length} bytes are too few, at least {SECRET_BYTES_MIN} are needed; {remedy}"),
            );
        }
    }
    if cluster.secret.is_none() && cluster.secret_next.is_some() {
        faults.rule(
            "cluster.secret_next",
            "needs `cluster.secret`: it is accepted beside it, not instead",
        );
    }
    let joins = !cluster.seeds.is_empty() || !cluster.dns.is_empty();
    let reachable = !config.listen.peer.ip().is_loopback();
    let has_secret = cluster.secret.is_some() || cluster.secret_file.is_some();
    if !has_secret && (joins || reachable) {
        let why = if joins {
            "to join other nodes"
        } else {
            "because `listen.peer` is not on loopback"
        };
        faults.rule("cluster.secret", format!("needed {why}; `rookery secret` prints one"));
    }
    let name = &cluster.name;
    if name.is_empty() || name.len() > 64 || !name.chars().all(|c| c.is_ascii_graphic()) {
        faults.rule(
            "cluster.name",
            format!("`{name}` is not a cluster name: 1 to 64 printable characters without spaces"),
        );
    }
    if cluster.poll_interval.is_zero() {
        faults.rule("cluster.poll_interval", "must be longer than 0");
    }
    for seed in &cluster.seeds {
        if !is_host_port(seed) {
            faults.rule("cluster.seeds", format!("`{seed}` is not `host:port`"));
        }
    }
    for name in &cluster.dns {
        let is_service = name.starts_with('_') && name.split('.').count() >= 3 && !name.contains(':');
        if !is_service && !is_host_port(name) {
            faults.rule(
                "cluster.dns",
                format!("`{name}` is neither `name:port` nor `_service._udp.name`"),
            );
        }
    }
}

/// What peers would refuse is a fault here, where it can be read at the start and by `rookery config check`.
fn check_certificates(config: &Config, faults: &mut Faults) {
    let cluster = &config.cluster;
    let keys = [
        ("cluster.ca", &cluster.ca),
        ("cluster.cert", &cluster.cert),
        ("cluster.key", &cluster.key),
    ];
    let Some((set, _)) = keys.iter().find(|(_, path)| path.is_some()) else {
        return;
    };
    for (key, _) in keys.iter().filter(|(_, path)| path.is_none()) {
        faults.rule(key, format!("needed, because `{set}` is set"));
    }
    if cluster.secret.is_none() && cluster.secret_file.is_none() {
        let why = "needed beside the certificates: players' tokens are signed with it";
        faults.rule("cluster.secret", format!("{why}; `rookery secret` prints one"));
    }
    let Some(files) = config.certificate_files() else {
        return;
    };
    // Without a name there is a fault already.
    let name = config.node.name.clone().or_else(super::host_name);
    let Some(node) = name.and_then(|name| name.as_str().parse().ok()) else {
        return;
    };
    if let Err(error) = files.check(&node) {
        let key = match &error {
            CertificateError::Unreadable { path, .. } | CertificateError::Malformed { path, .. } => {
                key_of(&files, path)
            }
            CertificateError::OtherKey { .. } => "cluster.key",
            CertificateError::Unfit { .. } | CertificateError::OtherName { .. } => "cluster.cert",
        };
        let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        faults.rule(key, format!("{error}{cause}"));
    }
}

fn key_of(files: &CertificateFiles, path: &Path) -> &'static str {
    match path {
        path if path == files.ca => "cluster.ca",
        path if path == files.cert => "cluster.cert",
        _ => "cluster.key",
    }
}

fn check_listeners(config: &Config, faults: &mut Faults) {
    let has_token = config.ops.token.is_some() || config.ops.token_file.is_some();
    if !config.listen.ops.ip().is_loopback() && !has_token {
        faults.rule(
            "ops.token",
            "needed because `listen.ops` is not on loopback; `rookery secret` prints one",
        );
    }
    if config.ops.token.as_ref().is_some_and(|token| token.expose().is_empty()) {
        faults.rule("ops.token", "is empty");
    }
    if config.listen.client == config.listen.ops && config.listen.ops.port() != 0 {
        faults.rule("listen.ops", format!("{} is `listen.client` too", config.listen.ops));
    }
    for origin in &config.listen.origins {
        let host = origin.split_once("://").map(|(_, host)| host);
        if origin != "*" && !host.is_some_and(|host| !host.is_empty() && !host.contains('/')) {
            faults.rule(
                "listen.origins",
                format!("`{origin}` is neither `*` nor `scheme://host[:port]`"),
            );
        }
    }
    if let Some(peer) = config.advertise.peer.as_ref().filter(|peer| !is_host_port(peer)) {
        faults.rule("advertise.peer", format!("`{peer}` is not `host:port`"));
    }
    if let Some(client) = &config.advertise.client {
        let is_url = ["ws://", "wss://", "http://", "https://"]
            .iter()
            .any(|scheme| client.starts_with(scheme));
        if !is_url && !is_host_port(client) {
            faults.rule(
                "advertise.client",
                format!("`{client}` is neither `host:port` nor a URL"),
            );
        }
    }
    if let Some(url) = &config.store.url {
        let known = ["sqlite://", "postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        if !known {
            faults.rule("store.url", "is neither `sqlite://path` nor `postgres://…`");
        }
    }
    if let Some(collector) = &config.telemetry.otlp {
        let host = collector.strip_prefix("http://").map(|rest| rest.split('/').next());
        let is_url = host.flatten().is_some_and(|host| !host.is_empty());
        if !is_url || collector.parse::<axum::http::Uri>().is_err() {
            let example = "http://collector:4318";
            faults.rule("telemetry.otlp", format!("`{collector}` is no URL such as `{example}`"));
        }
    }
}

fn check_files(config: &Config, faults: &mut Faults) {
    match (&config.tls.cert, &config.tls.key) {
        (Some(_), None) => faults.rule("tls.key", "needed, because `tls.cert` is set"),
        (None, Some(_)) => faults.rule("tls.cert", "needed, because `tls.key` is set"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let is_external = config.auth.registration == Registration::External;
    if is_external && config.auth.key.is_none() {
        faults.rule("auth.key", "needed, because `auth.registration` is `external`");
    }
    let only_external = [
        ("auth.key", config.auth.key.is_some()),
        ("auth.issuer", config.auth.issuer.is_some()),
        ("auth.audience", config.auth.audience.is_some()),
    ];
    for (key, _) in only_external.iter().filter(|(_, is_set)| *is_set && !is_external) {
        faults.rule(key, "has an effect only when `auth.registration` is `external`");
    }
    let named = [
        ("tls.cert", &config.tls.cert),
        ("tls.key", &config.tls.key),
        ("auth.key", &config.auth.key),
    ];
    for (key, path) in named {
        if let Some(error) = path.as_deref().and_then(unreadable) {
            faults.rule(key, error);
        }
    }
}

fn check_limits(config: &Config, faults: &mut Faults) {
    let limits = &config.limits;
    let counts = [
        ("limits.connections", limits.connections),
        ("limits.matches_per_session", limits.matches_per_session),
        ("limits.channels_per_session", limits.channels_per_session),
        ("limits.created_per_player", limits.created_per_player),
        ("chat.keep_lines", config.chat.keep_lines),
        ("limits.storage_values", limits.storage_values),
        ("limits.modules", limits.modules),
        ("limits.module_versions", limits.module_versions),
    ];
    for (key, _) in counts.iter().filter(|(_, count)| *count == 0) {
        faults.rule(key, "must be at least 1");
    }
    // A page is the least that a guest's memory can be, and 1 KiB the least in which a session can open.
    let sizes = [
        ("limits.frame", limits.frame.bytes(), 1 << 10),
        ("limits.outbox", limits.outbox.bytes(), 64 << 10),
        ("limits.match_memory", limits.match_memory.bytes(), 64 << 10),
        ("limits.storage_value", limits.storage_value.bytes(), 1 << 10),
        ("limits.module", limits.module.bytes(), 64 << 10),
    ];
    for (key, bytes, least) in sizes.iter().filter(|(_, bytes, least)| bytes < least) {
        faults.rule(
            key,
            format!("{bytes} bytes are too few; the least is {} KiB", least >> 10),
        );
    }
    if limits.module.bytes() > MODULE_BYTES_MAX {
        let most = MODULE_BYTES_MAX >> 20;
        faults.rule("limits.module", format!("must be at most {most} MiB"));
    }
    let (value, total) = (config.content.value.bytes(), config.content.total.bytes());
    if value == 0 || value > CONTENT_BYTES_MAX as u64 {
        let most = CONTENT_BYTES_MAX >> 20;
        faults.rule("content.value", format!("must be above 0 and at most {most} MiB"));
    }
    if total < value {
        faults.rule("content.total", "must hold at least one value (content.value)");
    }
    let durations = [
        ("limits.match_cpu", limits.match_cpu),
        ("matches.empty_after", config.matches.empty_after),
        ("matches.store_every", config.matches.store_every),
        ("matches.records_for", config.matches.records_for),
        ("chat.keep", config.chat.keep),
    ];
    for (key, _) in durations.iter().filter(|(_, duration)| duration.as_millis() == 0) {
        faults.rule(key, "must be at least 1ms");
    }
}

/// Which of two equal keys is the one to be taken away is a trap for whoever rotates them.
fn check_module_keys(config: &Config, faults: &mut Faults) {
    let keys = &config.modules.keys;
    for (place, key) in keys.iter().enumerate() {
        if keys[..place].contains(key) {
            faults.rule("modules.keys", format!("`{key}` stands there twice"));
        }
    }
}

fn check_queue(at: &str, queue: &Queue, faults: &mut Faults) {
    if queue.module.is_none() {
        faults.rule(
            &format!("{at}.module"),
            "needed: the module whose matches the queue forms",
        );
    }
    if queue.min_players == 0 || queue.max_players < queue.min_players {
        let (min, max) = (queue.min_players, queue.max_players);
        faults.rule(
            &format!("{at}.max_players"),
            format!("{min} to {max} players form no match"),
        );
    }
    if queue.teams == 0 || !queue.max_players.is_multiple_of(queue.teams.max(1)) {
        let (players, teams) = (queue.max_players, queue.teams);
        faults.rule(
            &format!("{at}.teams"),
            format!("{players} players do not split evenly into {teams} teams"),
        );
    }
    let skill = &queue.skill;
    let has_rule = skill.window.is_some() || skill.widen.is_some() || skill.every.is_some();
    if skill.property.is_none() && has_rule {
        faults.rule(
            &format!("{at}.skill.property"),
            "needed: the property that holds the number",
        );
    }
    if skill.property.is_some() && skill.window.is_none() {
        faults.rule(
            &format!("{at}.skill.window"),
            "needed: how far apart two players may be at first",
        );
    }
    if skill.widen.is_some() != skill.every.is_some() {
        faults.rule(
            &format!("{at}.skill.every"),
            "`widen` and `every` are needed both or not at all",
        );
    }
    for (key, value) in [("window", skill.window), ("widen", skill.widen)] {
        if value.is_some_and(|value| !value.is_finite() || value < 0.0) {
            faults.rule(&format!("{at}.skill.{key}"), "must be at least 0");
        }
    }
    if skill.every.is_some_and(|every| every.as_millis() == 0) {
        faults.rule(&format!("{at}.skill.every"), "must be at least 1ms");
    }
    if queue.max_waiting == 0 {
        faults.rule(&format!("{at}.max_waiting"), "must be at least 1");
    }
    if queue.expires.is_zero() {
        faults.rule(&format!("{at}.expires"), "must be longer than 0");
    }
}

fn check_world(at: &str, world: &World, faults: &mut Faults) {
    if world.zones.is_empty() {
        faults.rule(&format!("{at}.zones"), "needed: a world has at least one zone");
    }
    if let Some(entry) = world.entry.as_ref().filter(|entry| !world.zones.contains_key(*entry)) {
        faults.rule(&format!("{at}.entry"), format!("`{entry}` is no zone of this world"));
    }
    for pair in &world.neighbours {
        if pair.len() != 2 {
            faults.rule(
                &format!("{at}.neighbours"),
                format!("`{}` is not a pair of zones", pair.join(", ")),
            );
        }
    }
}

/// Whether this is `host:port` with a port above 0; an IPv6 address stands in brackets.
fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_ok = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', ' ', '[', ']', '@']),
    };
    host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn unreadable(path: &Path) -> Option<String> {
    let error = fs::File::open(path).err()?;
    Some(format!("{} cannot be read: {error}", path.display()))
}
