//! Thirty zones over three nodes, and everything that may happen to a node: each zone runs once, by what it says itself, and with
//! the state of at most two seconds before. The counter (tests/guests/counter) counts aloud, five times a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rookery_tests::harness::{Client, Encoding, TestCluster, counter, eventually, until, until_within};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const ZONES: usize = 30;

/// The lease of a dead owner (10 s), a look for matches without an owner, the restore.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// What a zone may have forgotten when it is back.
const FORGOTTEN_MS_MAX: u64 = 2_000;

/// Between two counts.
const BEAT_MS: u64 = 200;

/// Numbers of outputs rise by this much with each incarnation.
const INCARNATION_BITS: u32 = 40;

/// What is on its way when an owner falls silent is heard this long after, on a busy machine.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// Kills in a run; more when the whole promise is to be shown (ROOKERY_SCALE=full).
fn kills() -> usize {
    match std::env::var("ROOKERY_SCALE").as_deref() {
        Ok("full") => 10,
        _ => 3,
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the machine's clock is set").as_millis() as u64
}

/// One thing that a zone said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beat {
    count: u64,
    at: u64,
}

/// All that was heard of one zone, by anybody.
#[derive(Debug, Default)]
struct Heard {
    /// By the output's number. Two who run the same zone would say different things under one number.
    beats: BTreeMap<u64, Beat>,
    /// When each incarnation was first heard.
    incarnations: BTreeMap<u64, Instant>,
}

impl Heard {
    fn last(&self) -> Option<(u64, Beat)> {
        self.beats.last_key_value().map(|(seq, beat)| (*seq, *beat))
    }

    fn incarnation(&self) -> u64 {
        self.incarnations
            .last_key_value()
            .map_or(0, |(incarnation, _)| *incarnation)
    }
}

/// What players on all nodes hear of all zones, put together.
#[derive(Debug, Clone, Default)]
struct Chronicle {
    zones: Arc<Mutex<BTreeMap<String, Heard>>>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Chronicle {
    fn note(&self, push: &Value) {
        let data = &push["data"];
        let (Some(target), Some(seq), Some(count), Some(at)) = (
            push["match"].as_str(),
            push["seq"].as_u64(),
            data["count"].as_u64(),
            data["at"].as_u64(),
        ) else {
            return;
        };
        let beat = Beat { count, at };
        let mut zones = self.zones();
        let heard = zones.entry(target.to_owned()).or_default();
        let incarnation = seq >> INCARNATION_BITS;
        if let Some((newest, since)) = heard.incarnations.last_key_value()
            && *newest > incarnation
            && since.elapsed() > ON_ITS_WAY
        {
            self.fault(format!(
                "{target}: {beat:?} of incarnation {incarnation}, {:?} after {newest} began",
                since.elapsed()
            ));
        }
        heard.incarnations.entry(incarnation).or_insert_with(Instant::now);
        match heard.beats.insert(seq, beat) {
            Some(before) if before != beat => {
                self.fault(format!("{target}: two spoke at {seq}: {before:?} and {beat:?}"))
            }
            Some(_) | None => {}
        }
    }

    fn fault(&self, fault: String) {
        self.faults.lock().expect("no thread panics holding it").push(fault);
    }

    fn zones(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Heard>> {
        // A check that failed holds it, and says all that there is to say.
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody heard two of one zone, nothing of an old incarnation after a new one, and each one counts on by one.
    fn check(&self) {
        let faults = self.faults.lock().expect("no thread panics holding it");
        assert!(faults.is_empty(), "{faults:#?}");
        for (target, heard) in self.zones().iter() {
            for ((seq, beat), (next_seq, next)) in heard.beats.iter().zip(heard.beats.iter().skip(1)) {
                if seq >> INCARNATION_BITS == next_seq >> INCARNATION_BITS {
                    assert!(
                        next.count > beat.count,
                        "{target}: {beat:?} at {seq}, then {next:?} at {next_seq}"
                    );
                }
            }
        }
    }

    /// What each zone said last.
    fn last(&self) -> BTreeMap<String, (u64, Beat)> {
        let zones = self.zones();
        zones
            .iter()
            .filter_map(|(target, heard)| Some((target.clone(), heard.last()?)))
            .collect()
    }

    fn incarnations(&self) -> BTreeMap<String, u64> {
        let zones = self.zones();
        zones
            .iter()
            .map(|(target, heard)| (target.clone(), heard.incarnation()))
            .collect()
    }

    /// All zones have said something new since.
    async fn beat_on(&self, within: Duration, what: &str) {
        let before = self.last();
        until_within(within, what, async || {
            let now = self.last();
            let all = now.len() == ZONES
                && now
                    .iter()
                    .all(|(target, (seq, _))| before.get(target).is_none_or(|(old, _)| seq > old));
            all.then_some(())
        })
        .await;
    }

    /// What went on in another incarnation since `before` did so from a state that was at most two seconds old at `at_ms`.
    fn assert_remembered(&self, before: &BTreeMap<String, (u64, Beat)>, at_ms: u64) -> usize {
        let zones = self.zones();
        let mut restored = 0;
        for (target, (last_seq, last)) in before {
            let heard = &zones[target];
            let next = (last_seq >> INCARNATION_BITS) + 1;
            let Some((_, first)) = heard.beats.range(next << INCARNATION_BITS..).next() else {
                continue;
            };
            restored += 1;
            // It went on after this count, which it had reached at that time.
            let resumed_at = first.count - 1;
            if resumed_at >= last.count {
                continue;
            }
            // When it said so; or would have, if nobody listened yet: it counted five times a second before too.
            let told = heard
                .beats
                .range(..=last_seq)
                .rev()
                .find(|(_, beat)| beat.count <= resumed_at);
            let told_at = told.map_or_else(|| last.at - (last.count - resumed_at) * BEAT_MS, |(_, beat)| beat.at);
            let forgotten_ms = at_ms.saturating_sub(told_at);
            assert!(
                forgotten_ms <= FORGOTTEN_MS_MAX,
                "{target} forgot {forgotten_ms} ms: {first:?} after {last:?}"
            );
        }
        restored
    }
}

/// A player on one node who sits in all zones and writes down what they say.
struct Watcher {
    client: Arc<Client>,
    writing: JoinHandle<()>,
}

impl Watcher {
    async fn on(cluster: &TestCluster, index: usize, chronicle: &Chronicle) -> Self {
        let client = Arc::new(cluster.node(index).guest(Encoding::MsgPack).await);
        let (chronicle, reading) = (chronicle.clone(), Arc::clone(&client));
        let writing = tokio::spawn(async move {
            while let Ok(push) = reading.next_push_within(Duration::from_secs(600)).await {
                let Some(push) = push else { return };
                // A seat that is younger than the last save is not known any more: the player joins again.
                if push["type"] == "match.kicked"
                    && let Some(target) = push["match"].as_str().map(str::to_owned)
                {
                    assert_eq!(push["reason"], "restored", "{push}");
                    let client = Arc::clone(&reading);
                    tokio::spawn(async move { client.join(&target).await });
                }
                chronicle.note(&push);
            }
        });
        for no in 0..ZONES {
            let name = format!("w/z{no:02}");
            until("the zone is joined", async || client.join(&name).await.ok()).await;
        }
        Self { client, writing }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

async fn thirty_zones(builder: rookery_tests::harness::Builder) -> TestCluster {
    let mut builder = builder;
    for no in 0..ZONES {
        builder = builder.set(&format!("worlds.w.zones.z{no:02}"), "counter");
    }
    let cluster = builder.start().await;
    cluster.ops(0).publish(counter()).await;
    online(&cluster, 0).await;
    cluster
}

async fn online(cluster: &TestCluster, index: usize) {
    let ops = cluster.ops(index);
    until("the world is online", async || {
        let (status, body) = ops.get("/v1/worlds").await;
        (status == 200 && body["worlds"][0]["online"] == true).then_some(())
    })
    .await;
}

/// The owner of each zone, as a node sees it.
async fn owners(cluster: &TestCluster, index: usize) -> BTreeMap<String, String> {
    let (_, body) = cluster.ops(index).get("/v1/worlds").await;
    let zones = body["worlds"][0]["zones"].as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    zones
        .iter()
        .map(|zone| (text(&zone["match"]), text(&zone["owner"])))
        .collect()
}

/// The nodes say between them that they own each zone once.
async fn owned_once(cluster: &TestCluster) {
    eventually("the nodes own thirty matches between them", async || {
        let mut owned = 0.0;
        for index in 0..cluster.nodes().len() {
            let sample = r#"rookery_matches{module="counter",role="owner"}"#;
            owned += cluster.ops(index).metric(sample).await.unwrap_or(0.0);
        }
        owned == ZONES as f64
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_zones_run_once_each_whichever_node_is_killed() {
    let seed: u64 = std::env::var("ROOKERY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = thirty_zones(TestCluster::builder(3)).await;
    let chronicle = Chronicle::default();
    let mut watchers = BTreeMap::new();
    for index in 0..3 {
        watchers.insert(index, Watcher::on(&cluster, index, &chronicle).await);
    }
    chronicle.beat_on(BACK_WITHIN, "all zones are heard").await;
    for round in 0..kills() {
        let killed = random.random_range(0..3usize);
        let survivor = (killed + 1) % 3;
        eventually("each node has its share", async || {
            let owners = owners(&cluster, survivor).await;
            let has = |index: usize| {
                owners
                    .values()
                    .filter(|owner| *owner == cluster.node(index).name())
                    .count()
            };
            (0..3).all(|index| (9..=11).contains(&has(index)))
        })
        .await;
        // Each has run for a while, so that there is something to lose.
        chronicle.beat_on(BACK_WITHIN, "all zones run").await;
        let theirs: BTreeSet<String> = owners(&cluster, survivor)
            .await
            .into_iter()
            .filter(|(_, owner)| owner == cluster.node(killed).name())
            .map(|(target, _)| target)
            .collect();
        let incarnations = chronicle.incarnations();
        watchers.remove(&killed);
        cluster.node_mut(killed).kill();
        let (since, at_ms, before) = (Instant::now(), unix_ms(), chronicle.last());
        chronicle
            .beat_on(
                BACK_WITHIN,
                &format!("all zones are back (round {round}, node {killed}, seed {seed})"),
            )
            .await;
        let took = since.elapsed();
        let restored = chronicle.assert_remembered(&before, at_ms);
        eprintln!(
            "round {round}: {restored} zones of {} back after {took:?}",
            cluster.node(killed).name()
        );
        assert_eq!(
            restored,
            theirs.len(),
            "the zones of the dead node are begun anew, each once"
        );
        let again = chronicle.incarnations();
        for (target, incarnation) in incarnations {
            let expected = incarnation + u64::from(theirs.contains(&target));
            assert_eq!(again[&target], expected, "{target} in round {round}");
        }
        cluster.restart(killed).await;
        cluster.settled().await;
        online(&cluster, survivor).await;
        watchers.insert(killed, Watcher::on(&cluster, killed, &chronicle).await);
        owned_once(&cluster).await;
        chronicle.check();
    }
    chronicle.beat_on(BACK_WITHIN, "all zones run in the end").await;
    chronicle.check();
    assert!(watchers.values().all(|watcher| !watcher.client.player().is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_zones_come_back_with_their_state_when_all_nodes_were_stopped() {
    let mut cluster = thirty_zones(TestCluster::builder(3)).await;
    let chronicle = Chronicle::default();
    let watcher = Watcher::on(&cluster, 0, &chronicle).await;
    for _ in 0..3 {
        chronicle.beat_on(BACK_WITHIN, "all zones are heard").await;
    }
    let (before, at_ms) = (chronicle.last(), unix_ms());
    for index in 0..3 {
        cluster.node_mut(index).terminate();
    }
    for index in 0..3 {
        let status = cluster.node_mut(index).exited(Duration::from_secs(60)).await;
        assert!(status.success(), "{status}");
    }
    drop(watcher);
    for index in 0..3 {
        cluster.restart(index).await;
    }
    cluster.settled().await;
    online(&cluster, 0).await;
    owned_once(&cluster).await;
    let watcher = Watcher::on(&cluster, 1, &chronicle).await;
    chronicle.beat_on(BACK_WITHIN, "all zones are heard again").await;
    assert_eq!(chronicle.assert_remembered(&before, at_ms), ZONES);
    chronicle.check();
    drop(watcher);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_gets_its_share_and_a_zone_goes_on_as_if_nothing_had_happened() {
    let mut cluster = thirty_zones(TestCluster::builder(3)).await;
    let chronicle = Chronicle::default();
    let watcher = Watcher::on(&cluster, 0, &chronicle).await;
    chronicle.beat_on(BACK_WITHIN, "all zones are heard").await;
    let incarnations = chronicle.incarnations();
    let before = owners(&cluster, 0).await;
    cluster.add("node-4").await;
    eventually("each of four nodes has its share", async || {
        let owners = owners(&cluster, 3).await;
        let mut shares: BTreeMap<&String, usize> = BTreeMap::new();
        owners.values().for_each(|owner| *shares.entry(owner).or_default() += 1);
        shares.len() == 4 && shares.values().all(|share| (7..=8).contains(share))
    })
    .await;
    let after = owners(&cluster, 1).await;
    assert!(after.keys().eq(before.keys()), "zones keep their ids");
    let moved = after
        .iter()
        .filter(|(target, owner)| before[*target] != **owner)
        .count();
    assert_eq!(moved, 7, "no more than had to be");
    chronicle.beat_on(BACK_WITHIN, "all zones go on").await;
    assert_eq!(
        chronicle.incarnations(),
        incarnations,
        "moving is no new incarnation: nothing was forgotten"
    );
    chronicle.check();
    owned_once(&cluster).await;
    eventually("each is counted where it went", async || {
        let mut moves = 0.0;
        for index in 0..4 {
            moves += cluster
                .ops(index)
                .metric("rookery_zone_moves_total")
                .await
                .unwrap_or(0.0);
        }
        moves == 7.0
    })
    .await;
    drop(watcher);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_of_an_owner_that_stood_still_when_it_runs_again() {
    // A process that stands still may hold the file of an embedded database.
    let Some(builder) = TestCluster::builder(3).postgres() else {
        return;
    };
    let mut cluster = thirty_zones(builder).await;
    let chronicle = Chronicle::default();
    let stopped = 1;
    // Players on the other nodes: what waited in the stopped process's own sockets was said before.
    let watchers = [
        Watcher::on(&cluster, 0, &chronicle).await,
        Watcher::on(&cluster, 2, &chronicle).await,
    ];
    chronicle.beat_on(BACK_WITHIN, "all zones are heard").await;
    let owned = owners(&cluster, 0).await;
    let theirs = owned
        .values()
        .filter(|owner| *owner == cluster.node(stopped).name())
        .count();
    assert!(theirs >= 5, "{owned:?}");
    cluster.node_mut(stopped).stop();
    let (since, at_ms, before) = (Instant::now(), unix_ms(), chronicle.last());
    chronicle.beat_on(BACK_WITHIN, "all zones are back").await;
    assert_eq!(chronicle.assert_remembered(&before, at_ms), theirs);
    tokio::time::sleep_until(since + BACK_WITHIN).await;
    let incarnations = chronicle.incarnations();
    cluster.node_mut(stopped).cont();
    // Long enough to be heard, had it anything to say: its zones have beaten fifty times elsewhere.
    for _ in 0..3 {
        chronicle.beat_on(BACK_WITHIN, "all zones go on").await;
    }
    tokio::time::sleep_until(since + BACK_WITHIN + Duration::from_secs(10)).await;
    chronicle.check();
    assert_eq!(
        chronicle.incarnations(),
        incarnations,
        "no zone began anew because it came back"
    );
    cluster.settled().await;
    owned_once(&cluster).await;
    drop(watchers);
}
