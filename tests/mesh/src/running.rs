//! A process that a test started: its signals and its end. Dropping it kills it.

use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};

/// A child process. It is only ever signalled by its id, and only while that is its own.
#[derive(Debug)]
pub struct Running {
    child: Child,
    exited: Option<ExitStatus>,
}

impl Running {
    pub fn new(child: Child) -> Self {
        Self { child, exited: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process's status, if it has ended.
    pub fn try_exited(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("our own child can be waited for");
        }
        self.exited
    }

    /// `kill -9`: the process is gone when this returns.
    pub fn kill(&mut self) {
        if self.try_exited().is_none() {
            self.child.kill().expect("our own child can be killed");
            self.exited = Some(self.child.wait().expect("our own child can be waited for"));
        }
    }

    /// SIGSTOP: the process keeps its sockets and does nothing.
    pub fn stop(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT, after [`Running::stop`].
    pub fn cont(&mut self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM: an orderly end.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    fn signal(&mut self, signal: Signal) {
        // Not waited for yet, so the id is still its own.
        if self.try_exited().is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).expect("our own child can be signalled");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
