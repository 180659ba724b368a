//! One running copy of match logic and the store it lives in. Every call of the guest goes through [`Instance::call`], so that none
//! runs without its budgets. After a failed call the instance is finished: its memory is in the middle of something.

use std::sync::Arc;
use std::time::Duration;

use rookery_protocol::Digest;
use wasmtime::component::InstancePre;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use super::engine::Engine;
use super::host::HostState;
use super::host::bindings::{MatchLogic, MatchLogicIndices};
use super::image::Image;
use super::image::capture::{Access, Capture};
use super::trap::Failure;
use crate::matches::event::TrapKind;
use crate::matches::part::HostPart;

/// What lists and records cost the host beyond the bytes in them, in one call of an import or one result.
const LIFT_SLACK_BYTES: u64 = 64 << 10;

/// Ticks until the host's own calls into an instance would be looked at: longer than any process lives.
const TICKS_OF_THE_HOST: u64 = 1 << 60;

/// A linked component, ready to be instantiated.
pub(super) struct Template {
    pub(super) engine: Engine,
    pub(super) pre: InstancePre<HostState>,
    pub(super) indices: MatchLogicIndices,
}

pub(crate) struct Instance {
    engine: Engine,
    store: Store<HostState>,
    component: wasmtime::component::Instance,
    guest: MatchLogic,
    /// How to take images of it; none if its module cannot be captured.
    capture: Option<Arc<Capture>>,
}

impl Instance {
    pub(super) fn new(template: &Template, capture: Option<Arc<Capture>>, part: HostPart) -> Result<Instance, Failure> {
        let engine = &template.engine;
        let bytes_out = part.start.limits.bytes_out;
        let mut store = Store::new(engine.wasmtime(), HostState::new(part));
        store.limiter(|state| &mut state.guard);
        store.set_hostcall_fuel(fuel(bytes_out));
        store.epoch_deadline_callback(judge_time);
        // A component may run code of its own while it is instantiated.
        let (component, guest) = budgeted(engine, &mut store, |store| {
            let component = template.pre.instantiate(&mut *store)?;
            Ok((component, template.indices.load(store, &component)?))
        })?;
        // Under other limits it would be another instance, and a fresh one has to be the same everywhere.
        if store.data().guard.memory_refused {
            let limit = store.data().part.start.limits.memory_bytes;
            let message = format!("was refused memory beyond {limit} bytes while it was instantiated");
            return Err(Failure::new(TrapKind::Memory, message));
        }
        Ok(Instance {
            engine: engine.clone(),
            store,
            component,
            guest,
            capture,
        })
    }

    /// What the guest has in memory, between two events. Pages that the image before has already are shared with it. Changes nothing,
    /// and costs the guest nothing. Fails after a failed call, and if the module cannot be captured.
    pub(crate) fn image(&mut self, previous: Option<&Image>) -> Result<Image, Failure> {
        let capture = self.capture.clone();
        let capture = capture.ok_or_else(|| Failure::new(TrapKind::Trap, "the module cannot be captured"))?;
        let component = self.component;
        self.as_host(|store| capture.image(store, &component, previous))
            .map_err(|error| Failure::of_call(&error, None, None))
    }

    /// Makes a fresh instance what the image says. After a failure it is of no use.
    pub(super) fn restore(&mut self, image: &Image) -> Result<(), Failure> {
        let capture = self.capture.clone();
        let capture = capture.ok_or_else(|| Failure::new(TrapKind::Trap, "the module cannot be captured"))?;
        let component = self.component;
        self.as_host(|store| capture.restore(store, &component, image))
    }

    /// Takes this fresh instance as what images of the module's matches are compared with.
    pub(super) fn capture(&mut self, module: Digest, access: Access) -> Result<Capture, Failure> {
        let component = self.component;
        self.as_host(|store| Capture::of_fresh(module, access, store, &component))
            .map_err(|error| Failure::of_call(&error, None, None))
    }

    /// Calls the accessor: none of the guest's budgets apply, and none is used.
    fn as_host<R>(&mut self, call: impl FnOnce(&mut Store<HostState>) -> R) -> R {
        let store = &mut self.store;
        let fuel = store.hostcall_fuel();
        store.set_hostcall_fuel(usize::MAX);
        store.set_epoch_deadline(TICKS_OF_THE_HOST);
        let result = call(store);
        store.set_hostcall_fuel(fuel);
        result
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
    let answer = call(store);
    store.data_mut().note_peak();
    answer.map_err(|error| {
        let state = store.data_mut();
        state.call.note_used(thread_cpu_time());
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

/// What the calling thread has used of its processor.
pub(crate) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
