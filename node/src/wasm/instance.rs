//! One running copy of match logic and the store it lives in. Every call of the guest goes through [`Instance::call`], so that none
//! runs without its budgets. After a failed call the instance is finished: its memory is in the middle of something.

use std::time::Duration;

use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use super::engine::Engine;
use super::host::HostState;
use super::host::bindings::{MatchLogic, MatchLogicPre};
use super::trap::Failure;
use crate::matches::part::HostPart;

/// What lists and records cost the host beyond the bytes in them, in one call of an import or one result.
const LIFT_SLACK_BYTES: u64 = 64 << 10;

pub(crate) struct Instance {
    engine: Engine,
    store: Store<HostState>,
    guest: MatchLogic,
}

impl Instance {
    pub(super) fn new(engine: &Engine, pre: &MatchLogicPre<HostState>, part: HostPart) -> Result<Instance, Failure> {
        let bytes_out = part.start.limits.bytes_out;
        let mut store = Store::new(engine.wasmtime(), HostState::new(part));
        store.limiter(|state| &mut state.guard);
        store.set_hostcall_fuel(fuel(bytes_out));
        store.epoch_deadline_callback(judge_time);
        // A component may run code of its own while it is instantiated.
        let guest = budgeted(engine, &mut store, |store| pre.instantiate(store))?;
        Ok(Instance {
            engine: engine.clone(),
            store,
            guest,
        })
    }

    /// Calls the guest within the budgets of one call.
    pub(crate) fn call<R>(
        &mut self,
        call: impl FnOnce(&MatchLogic, &mut Store<HostState>) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        let guest = &self.guest;
        budgeted(&self.engine, &mut self.store, |store| call(guest, store))
    }

    /// Asks for the logical state, which may be larger than what a call may say otherwise.
    pub(crate) fn save(&mut self) -> Result<Vec<u8>, Failure> {
        let limits = &self.state().part.start.limits;
        let (bytes_out, save_bytes) = (limits.bytes_out, limits.save_bytes);
        self.store.set_hostcall_fuel(fuel(save_bytes));
        let saved = self.call(|guest, store| guest.call_save(store));
        self.store.set_hostcall_fuel(fuel(bytes_out));
        saved
    }

    pub(crate) fn state(&self) -> &HostState {
        self.store.data()
    }

    pub(crate) fn state_mut(&mut self) -> &mut HostState {
        self.store.data_mut()
    }
}

fn fuel(bytes: u64) -> usize {
    usize::try_from(bytes.saturating_add(LIFT_SLACK_BYTES)).unwrap_or(usize::MAX)
}

fn budgeted<R>(
    engine: &Engine,
    store: &mut Store<HostState>,
    call: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<R>,
) -> Result<R, Failure> {
    let _running = engine.running();
    let state = store.data_mut();
    state.call.begin();
    state.guard.memory_refused = false;
    store.set_epoch_deadline(1);
    call(store).map_err(|error| {
        let state = store.data_mut();
        let memory_refused = state
            .guard
            .memory_refused
            .then_some(state.part.start.limits.memory_bytes);
        Failure::of_call(&error, state.call.cut.take(), memory_refused)
    })
}

/// Runs on the guest's thread at the first check point after each tick.
fn judge_time(mut store: StoreContextMut<'_, HostState>) -> wasmtime::Result<UpdateDeadline> {
    let cpu_now = thread_cpu_time();
    let state = store.data_mut();
    Ok(match state.call.is_over_time(cpu_now, &state.part.start.limits) {
        true => UpdateDeadline::Interrupt,
        false => UpdateDeadline::Continue(1),
    })
}

fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
