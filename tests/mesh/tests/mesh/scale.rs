//! What must not hold gossip up: seeds that swallow everything, and bulk traffic. The figures mean something on a quiet machine only, so
//! all of it is `measured`. CI runs the bulk for 5 s, `ROOKERY_SCALE=full` for 20 s, as `scripts/bench mesh` does.

mod measured {
    use std::collections::BTreeMap;
    use std::net::{SocketAddr, UdpSocket};
    use std::time::{Duration, Instant};

    use rookery_mesh_tests::{
        Answer, MeshCluster, MeshProcess, MeshSpec, Order, PATIENCE, Pace, Report, Try, free_ports,
    };

    /// What gossip and probes may be late by at p99 while bulk traffic runs.
    const LATE_MAX: Duration = Duration::from_millis(20);

    const CHANNELS: [u8; 4] = [0, 1, 2, 3];
    const MESSAGE_BYTES: usize = 16 << 10;
    const BROADCAST_BYTES: usize = 256 << 10;

    fn is_full() -> bool {
        std::env::var("ROOKERY_SCALE").is_ok_and(|scale| scale == "full")
    }

    fn stat(report: &Report, name: &str) -> u64 {
        report.stats[name]
    }

    /// A port that swallows everything, as a firewall does.
    fn black_hole() -> (UdpSocket, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap().to_string();
        (socket, addr)
    }

    #[tokio::test]
    async fn two_black_holes_among_four_seeds_delay_nothing() {
        for pace in [Pace::Default, Pace::Lan] {
            let holes = [black_hole(), black_hole()];
            let ports = free_ports(2);
            let mut seeds: Vec<String> = holes.iter().map(|(_, addr)| addr.clone()).collect();
            seeds.extend(ports.iter().map(|port| format!("127.0.0.1:{port}")));
            let began = Instant::now();
            let mut nodes: Vec<MeshProcess> = Vec::new();
            for (index, port) in ports.iter().enumerate() {
                let mut spec = MeshSpec::new(&format!("n{index}"));
                spec.setup.profile = pace;
                spec.setup.listen = SocketAddr::from(([127, 0, 0, 1], *port));
                spec.setup.seeds = seeds.clone();
                nodes.push(spec.spawn());
            }
            for node in &mut nodes {
                node.ready().await;
            }
            let mut whole = None;
            while whole.is_none() {
                let mut ready = 0;
                for node in &nodes {
                    let members = node.report().await.members;
                    ready += members.values().filter(|seen| seen.state == "ready").count();
                }
                if ready == 4 {
                    whole = Some(began.elapsed());
                }
                assert!(began.elapsed() < PATIENCE, "the two do not find each other");
            }
            // Further dials to the silent ones come and go meanwhile.
            tokio::time::sleep(Duration::from_secs(5)).await;
            for node in &nodes {
                let report = node.report().await;
                let late_us = stat(&report, "gossip_tick_late_max_us");
                println!(
                    "{pace:?}: whole after {whole:?} from the start of the processes; of {} ticks the latest by {late_us} us",
                    stat(&report, "gossip_ticks_total")
                );
                assert!(stat(&report, "dial_failures_total") >= 2, "the holes were dialled");
                assert_eq!(
                    stat(&report, "gossip_ticks_late_interval_total"),
                    0,
                    "late by {late_us} us"
                );
                assert_eq!(stat(&report, "suspicions_total"), 0);
            }
            let whole = whole.unwrap();
            assert!(
                whole < Duration::from_secs(2),
                "{pace:?}: the cluster was whole after {whole:?}"
            );
        }
    }

    /// Sends broadcasts one after the other, as fast as they are taken, and says how many there were.
    async fn broadcasts(node: &MeshProcess, lasts: Duration) -> u64 {
        let (began, mut copies) = (Instant::now(), 0);
        while began.elapsed() < lasts {
            let order = Order::Broadcast {
                group: "bulk".into(),
                count: 16,
                bytes: BROADCAST_BYTES,
            };
            let Answer::Broadcast { copies: taken, .. } = node.tell(order, PATIENCE).await.1 else {
                panic!("a broadcast is answered with how far it got");
            };
            copies += taken;
        }
        copies
    }

    async fn bulk(node: &MeshProcess, to: &str, lasts: Duration) -> u64 {
        let order = Order::Bulk {
            to: to.into(),
            channels: CHANNELS.into(),
            bytes: MESSAGE_BYTES,
            for_ms: lasts.as_millis() as u64,
            bytes_per_s: None,
        };
        match node.tell(order, lasts + PATIENCE).await.1 {
            Answer::Bulk { bytes, took_us, .. } => bytes * 1_000_000 / took_us.max(1),
            other => panic!("bulk is answered with what was sent, not {other:?}"),
        }
    }

    /// The quantiles of round trips, in milliseconds: p50, p99, the longest.
    fn quantiles(tries: &[Try]) -> [f64; 3] {
        let mut trips: Vec<u64> = tries
            .iter()
            .map(|one| one.answered_us.expect("every request is answered") - one.asked_us)
            .collect();
        trips.sort_unstable();
        let at = |share: f64| trips[((trips.len() - 1) as f64 * share).round() as usize] as f64 / 1e3;
        [at(0.5), at(0.99), at(1.0)]
    }

    struct Figures {
        trips: BTreeMap<&'static str, [f64; 3]>,
        ticks: u64,
        late: u64,
        latest_us: u64,
        suspicions: u64,
        bytes_per_s: u64,
        copies: u64,
    }

    /// Three nodes ask each other every 10 ms over their control connections; n0 and n1 flood each other meanwhile, if they are to.
    async fn measure(cluster: &MeshCluster, lasts: Duration, flood: bool) -> Figures {
        let (n0, n1, n2) = (cluster.node(0), cluster.node(1), cluster.node(2));
        let sums = async || {
            let (mut ticks, mut late, mut suspicions, mut latest) = (0, 0, 0, 0);
            for node in cluster.nodes() {
                let report = node.report().await;
                ticks += stat(&report, "gossip_ticks_total");
                late += stat(&report, "gossip_ticks_late_20ms_total");
                suspicions += stat(&report, "suspicions_total");
                latest = latest.max(stat(&report, "gossip_tick_late_max_us"));
            }
            (ticks, late, suspicions, latest)
        };
        let before = sums().await;
        let (every, deadline) = (Duration::from_millis(10), Duration::from_secs(10));
        let flooding = async {
            if !flood {
                return (0, 0);
            }
            let (there, back, copies) =
                tokio::join!(bulk(n0, "n1", lasts), bulk(n1, "n0", lasts), broadcasts(n0, lasts));
            (there + back, copies)
        };
        let ((bytes_per_s, copies), there, back, from_afar) = tokio::join!(
            flooding,
            n0.ask("n1", every, deadline, lasts),
            n1.ask("n0", every, deadline, lasts),
            n2.ask("n1", every, deadline, lasts),
        );
        let after = sums().await;
        Figures {
            trips: BTreeMap::from([
                ("n0 to n1", quantiles(&there)),
                ("n1 to n0", quantiles(&back)),
                ("n2 to n1", quantiles(&from_afar)),
            ]),
            ticks: after.0 - before.0,
            late: after.1 - before.1,
            suspicions: after.2 - before.2,
            latest_us: after.3,
            bytes_per_s,
            copies,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bulk_traffic_delays_neither_gossip_nor_probes() {
        let lasts = Duration::from_secs(if is_full() { 20 } else { 5 });
        let cluster = MeshCluster::start(3, Pace::Lan).await;
        cluster.node(1).join(["bulk"]).await;
        let quiet = measure(&cluster, Duration::from_secs(2), false).await;
        let flooded = measure(&cluster, lasts, true).await;
        for (name, figures) in [("quiet", &quiet), ("flooded", &flooded)] {
            println!(
                "{name}: {:.0} MB/s, {} broadcasts, {} of {} ticks later than 20 ms, the latest by {:.1} ms",
                figures.bytes_per_s as f64 / 1e6,
                figures.copies,
                figures.late,
                figures.ticks,
                figures.latest_us as f64 / 1e3
            );
            for (way, [p50, p99, max]) in &figures.trips {
                println!("{name}: {way}: p50 {p50:.2} ms, p99 {p99:.2} ms, longest {max:.2} ms");
            }
        }
        assert_eq!(flooded.suspicions, 0, "nobody was suspected");
        assert!(
            flooded.bytes_per_s > 10_000_000 && flooded.copies > 10,
            "there was bulk traffic"
        );
        for (way, [_, p99, _]) in &flooded.trips {
            assert!(*p99 <= LATE_MAX.as_secs_f64() * 1e3, "{way}: p99 {p99:.2} ms");
        }
        assert!(
            flooded.late as f64 <= flooded.ticks as f64 * 0.01,
            "{} of {} ticks were late",
            flooded.late,
            flooded.ticks
        );
    }
}
