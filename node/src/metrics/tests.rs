use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

/// The value of the sample whose name and labels are `sample`.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

#[test]
fn every_family_of_the_contract_is_present_before_anything_has_happened() {
    let text = Metrics::new().render();
    let families = "rookery_members rookery_gossip_keys rookery_suspicions_total rookery_false_suspicions_total
        rookery_peer_connections rookery_peer_messages_total rookery_peer_queue_dropped_total rookery_peer_rtt_seconds
        rookery_discovery_failures_total rookery_sessions rookery_sessions_resumed_total rookery_client_messages_total
        rookery_client_slow_closed_total rookery_rate_limited_total rookery_matches rookery_match_events_total
        rookery_match_event_seconds rookery_match_tick_late_total rookery_match_traps_total rookery_matches_moved_total
        rookery_matches_taken_over_total rookery_matches_lost_total rookery_match_pause_seconds
        rookery_replication_lag_events rookery_ownership_conflicts_total rookery_tickets rookery_ticket_wait_seconds
        rookery_zones rookery_zone_moves_total rookery_leader rookery_store_seconds rookery_store_up rookery_build_info";
    for family in families.split_whitespace() {
        assert_eq!(text.matches(&format!("# TYPE {family} ")).count(), 1, "{family}");
    }
    for sample in [
        "rookery_members{state=\"suspect\"}",
        "rookery_peer_messages_total{direction=\"out\"}",
        "rookery_discovery_failures_total{source=\"dns\"}",
        "rookery_rate_limited_total{class=\"accounts\"}",
        "rookery_sessions_resumed_total{from=\"other_node\"}",
        "rookery_matches_moved_total{reason=\"drain\"}",
        "rookery_match_pause_seconds_count{reason=\"take_over\"}",
        "rookery_zones{state=\"missing\"}",
        "rookery_leader",
        "rookery_store_up",
    ] {
        assert_eq!(value(&text, sample), Some(0.0), "{sample}");
    }
}

#[test]
fn a_module_has_all_its_series_from_its_first_match_on() {
    let metrics = Metrics::new();
    assert_eq!(
        value(&metrics.render(), "rookery_match_events_total{module=\"duel\"}"),
        None
    );
    let duel = metrics.module("duel");
    let text = metrics.render();
    assert_eq!(
        value(&text, "rookery_matches{module=\"duel\",role=\"backup\"}"),
        Some(0.0)
    );
    assert_eq!(
        value(&text, "rookery_match_event_seconds_count{module=\"duel\"}"),
        Some(0.0)
    );
    for kind in TrapKind::ALL {
        let sample = format!(
            "rookery_match_traps_total{{kind=\"{}\",module=\"duel\"}}",
            kind.as_str()
        );
        assert_eq!(value(&text, &sample), Some(0.0), "{sample}");
    }
    duel.event(Duration::from_micros(3));
    duel.trapped(TrapKind::BadOutput);
    let text = metrics.render();
    assert_eq!(value(&text, "rookery_match_events_total{module=\"duel\"}"), Some(1.0));
    assert_eq!(
        value(
            &text,
            "rookery_match_event_seconds_bucket{module=\"duel\",le=\"0.000005\"}"
        ),
        Some(1.0)
    );
    assert_eq!(
        value(&text, "rookery_match_traps_total{kind=\"bad_output\",module=\"duel\"}"),
        Some(1.0)
    );
}

#[test]
fn what_the_mesh_counted_is_copied_and_never_goes_back() {
    let metrics = Metrics::new();
    let mut figures = MeshFigures {
        members: BTreeMap::from([("ready", 3), ("suspect", 1)]),
        messages_out: 10,
        limited: vec![(MeshLimit::TooFast, 4)],
        certificate_expiry_s: 1_795_261_356,
        dns_failures: 2,
        groups_in_directory: 5,
        directory: DirectoryStats {
            repaired_total: 4,
            ..DirectoryStats::default()
        },
        rtts: vec![Duration::from_micros(300)],
        ..MeshFigures::default()
    };
    metrics.mesh(&figures);
    figures.messages_out = 7;
    figures.members.remove("suspect");
    metrics.mesh(&figures);
    let text = metrics.render();
    assert_eq!(value(&text, "rookery_members{state=\"ready\"}"), Some(3.0));
    assert_eq!(value(&text, "rookery_members{state=\"suspect\"}"), Some(0.0));
    assert_eq!(
        value(&text, "rookery_peer_messages_total{direction=\"out\"}"),
        Some(10.0)
    );
    assert_eq!(
        value(&text, "rookery_discovery_failures_total{source=\"dns\"}"),
        Some(2.0)
    );
    let too_fast = "rookery_mesh_limited_total{limit=\"too_fast\"}";
    assert_eq!(value(&text, too_fast), Some(4.0));
    let expiry = "rookery_mesh_certificate_expiry_timestamp_seconds";
    assert_eq!(value(&text, expiry), Some(1_795_261_356.0));
    assert_eq!(value(&text, "rookery_groups{place=\"directory\"}"), Some(5.0));
    let repairs = |directory| {
        value(
            &text,
            &format!("rookery_directory_repairs_total{{directory=\"{directory}\"}}"),
        )
    };
    assert_eq!((repairs("groups"), repairs("matches")), (Some(4.0), Some(0.0)));
    assert_eq!(value(&text, "rookery_peer_rtt_seconds_count"), Some(2.0));
}

#[test]
fn gauges_that_are_read_are_read_on_every_scrape() {
    let metrics = Metrics::new();
    metrics.on_collect(|metrics| metrics.sessions.add(2));
    metrics.render();
    assert_eq!(value(&metrics.render(), "rookery_sessions"), Some(4.0));
}

#[test]
fn promtool_has_nothing_to_say_about_the_text() {
    let metrics = Metrics::new();
    metrics.module("duel").event(Duration::from_micros(3));
    metrics.queue("duel");
    metrics.store_operation("create_match", Duration::from_millis(2));
    let text = metrics.render();
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Ok(promtool) => promtool,
        Err(error) => {
            let absent = format!("promtool (Debian's package prometheus) does not run here: {error}");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{absent}");
            eprintln!("not checked: {absent}");
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
