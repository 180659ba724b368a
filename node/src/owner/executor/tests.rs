//! That the matches of one thread get along: what others wait for one that uses up all the time that a call has.

use std::time::Duration;

use rookery_protocol::SessionId;
use rookery_protocol::client::JoinRole;
use rookery_protocol::output::Attachment;
use rookery_protocol::peer::{Down, JoinRequest, MatchFailure, UpBody, WirePayload};

use super::*;
use crate::matches::machine::{Failure, LogLevel};
use crate::metrics::Metrics;
use crate::owner::room::Verdict;
use crate::store::Save;
use crate::wasm::testing::Guest;
use crate::wasm::{Engine, EngineConfig};

/// Matches that use up their time all at once.
const LOOPERS: u64 = 30;

/// A node that takes note of one thing: how often its ticking match has ticked whenever a call of another was cut off.
struct Deaf {
    ticker: ModuleMetrics,
    ticks: Mutex<Vec<u64>>,
}

impl Outside for Deaf {
    fn down(&self, _: usize, _: &NodeLife, _: Down) -> bool {
        true
    }
    fn flushed(&self, _: usize) {}
    fn perform(&self, _: EffectOf) -> bool {
        true
    }
    fn save(&self, _: Save) -> bool {
        true
    }
    fn find(&self, _: MatchId, _: String) {}
    fn post(&self, _: Letter) -> bool {
        true
    }
    fn not_here(&self, _: &NodeLife, _: &Letter) {}
    fn receipt(&self, _: &NodeLife, _: Receipt) {}
    fn seated(&self, _: MatchId, _: PlayerId) {}
    fn over(&self, _: MatchId, _: u64, _: Verdict) {}
    fn logged(&self, _: MatchId, _: &str, _: LogLevel, _: String) {}
    fn here(&self, _: MatchId, _: Under, _: Option<&str>) {}
    fn gone(&self, _: MatchId) {}
    fn keep(&self, _: MatchId, _: Taken) {}
    fn not_created(&self, _: MatchId, _: &str, _: &Failure) {}
    fn failed(&self, _: MatchId, _: &str, _: &MatchFailure) {
        self.ticks.lock().unwrap().push(self.ticker.events.get());
    }
}

fn life() -> NodeLife {
    NodeLife {
        name: "owner".parse().unwrap(),
        generation: 1,
    }
}

fn new_match(number: u64, module: &Module, metrics: &Metrics) -> NewMatch {
    let start = StartRecord::new(MatchId::from_u128(number.into()), module, 1, 0);
    NewMatch {
        module: module.clone(),
        metrics: metrics.module(&start.module),
        origin: Origin::Start(Box::new(start)),
        config: RoomConfig::of_tests(life().name, 1),
    }
}

fn join(number: u64) -> Up {
    let request = JoinRequest {
        req: 1,
        player: PlayerId::from_u128(number.into()),
        name: "Ana".into(),
        role: JoinRole::Player,
        ctx: WirePayload::Absent,
        attachment: Attachment {
            number: 1,
            session: SessionId::from_u128(number.into()),
            node: life().name,
            generation: 1,
        },
        is_following: false,
    };
    Up {
        target: MatchId::from_u128(number.into()),
        stream: 1,
        body: UpBody::Join(Box::new(request)),
    }
}

/// A thread with a match of 20 Hz.
struct Beside {
    executor: Executor,
    metrics: Arc<Metrics>,
    deaf: Arc<Deaf>,
}

impl Beside {
    async fn new(engine: &Engine) -> Beside {
        let ticker = engine.compile(&Guest::new("ticker").ticking(20).component()).unwrap();
        let metrics = Metrics::new();
        let deaf = Arc::new(Deaf {
            ticker: metrics.module("ticker"),
            ticks: Mutex::default(),
        });
        let outside: Arc<dyn Outside> = Arc::clone(&deaf) as _;
        let executor = Executor::start(1, outside, &Fence::default(), &TaskTracker::new()).unwrap();
        executor.create(new_match(0, &ticker, &metrics)).await.unwrap();
        executor.release(MatchId::from_u128(0));
        Beside {
            executor,
            metrics,
            deaf,
        }
    }

    async fn stop(self) {
        tokio::task::spawn_blocking(move || self.executor.stop()).await.unwrap();
    }
}

/// How often it ticked while calls of others of its thread were cut off, so many. `set_off` says how they are brought to.
async fn ticks_beside(looper: Guest, failures: u64, set_off: impl FnOnce(&Executor)) -> u64 {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let looper = engine.compile(&looper.component()).unwrap();
    let beside = Beside::new(&engine).await;
    let executor = &beside.executor;
    for number in 1..=LOOPERS {
        executor
            .create(new_match(number, &looper, &beside.metrics))
            .await
            .unwrap();
    }
    (1..=LOOPERS).for_each(|number| executor.release(MatchId::from_u128(number.into())));
    set_off(executor);
    let deadline = Instant::now() + Duration::from_secs(120);
    let ticks = loop {
        let ticks = beside.deaf.ticks.lock().unwrap().clone();
        if ticks.len() as u64 >= failures {
            break ticks;
        }
        assert!(Instant::now() < deadline, "{} of {failures} were cut off", ticks.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    beside.stop().await;
    ticks[ticks.len() - 1] - ticks[0]
}

/// A call that is cut off has used 10 ms of processor time at least, so on the slowest machine six ticks fall due meanwhile.
const TICKS_MIN: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_match_ticks_while_many_inputs_use_up_the_time_that_a_call_has() {
    let looper = Guest::new("looper").on("join", "(loop $again (br $again)) (call $ok)");
    let ticks = ticks_beside(looper, LOOPERS, |executor| {
        for number in 1..=LOOPERS {
            assert!(executor.up(life(), join(number)));
        }
    });
    let ticks = ticks.await;
    assert!(ticks >= TICKS_MIN, "{ticks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_whose_calls_are_cut_off_rests_between_them_whatever_they_are() {
    let all = "(loop $again (call $add_bot @'b' (i32.const 800)) (call $kick (i32.load (i32.const 804)) @'')
           (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 20))))
         (call $ok)";
    let mut looper = Guest::new("looper")
        .on("join", all)
        .on("leave", "(loop $again (br $again))");
    looper.max_players = 100;
    // After each of these leavings it rests for 600 ms at least.
    let ticks = ticks_beside(looper, 3, |executor| assert!(executor.up(life(), join(1)))).await;
    assert!(ticks >= TICKS_MIN, "{ticks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_creates_one_match_after_the_other_whose_calls_are_cut_off_waits_for_them() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let looper = Guest::new("looper").on("start", "(loop $again (br $again)) (call $ok)");
    let looper = engine.compile(&looper.component()).unwrap();
    let beside = Beside::new(&engine).await;
    for number in 1..=3 {
        let created = beside
            .executor
            .create(new_match(number, &looper, &beside.metrics))
            .await;
        assert_eq!(created.unwrap_err().code, ErrorCode::ModuleInvalid);
    }
    // Each of the first two keeps the next one waiting for 600 ms at least.
    let ticks = beside.deaf.ticker.events.get();
    beside.stop().await;
    assert!(ticks >= TICKS_MIN, "{ticks}");
}
