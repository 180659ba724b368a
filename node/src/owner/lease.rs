//! This node's lease on what it owns: when to ask for more of it, until when it holds, and what to look at after it was over.
//!
//! Pure; times are milliseconds on a clock that runs through suspension. The store counts the lease from when it wrote the
//! renewal, we count it from when we asked, and we stop [`MARGIN_MS`] before it ends: so nobody takes a match over, by the
//! store's clock, before its owner has fallen silent. After a lapse the lease holds again only when the rows of our matches were
//! read under the new lease: from then on nobody can have taken them unseen.

#![deny(clippy::disallowed_methods)]

/// How long a renewal holds, by the database's clock.
pub const LEASE_MS: u64 = 10_000;

/// What the two clocks may disagree by over one lease, and what was handed to the transport needs to leave.
pub const MARGIN_MS: u64 = 750;

/// How often it is renewed: three may fail before it lapses.
pub const RENEW_EVERY_MS: u64 = 2_500;

/// Between two tries while the store does not answer.
const AGAIN_MS: u64 = 500;

/// What happens to the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The time of [`Lease::next_wake_ms`] has come.
    Wake,
    /// The store wrote the renewal that was asked for then.
    Renewed { asked_ms: u64 },
    /// The store did not answer. It may have written it all the same.
    Failed,
    /// The rows of our matches were read, under the renewal that was asked for then, and what is no longer ours was dropped.
    Checked { asked_ms: u64 },
    /// The rows could not be read.
    Unchecked,
}

/// What the driver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Renew the row; the answer names the time of asking.
    Renew { asked_ms: u64 },
    /// Read which matches are still ours, and drop the others.
    Check { asked_ms: u64 },
    /// Matches may be heard until then.
    Open { until_ms: u64 },
    /// It had lapsed: what was held back meanwhile may go out.
    Lift,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    until_ms: u64,
    /// A renewal or a check is under way.
    is_asking: bool,
    next_ask_ms: u64,
}

impl Lease {
    /// A lease that was asked for then: registering a node begins it.
    pub fn new(asked_ms: u64) -> Self {
        Self {
            until_ms: until(asked_ms),
            is_asking: false,
            next_ask_ms: asked_ms + RENEW_EVERY_MS,
        }
    }

    /// Until when the lease holds.
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// When [`Input::Wake`] is due; none while an answer is awaited, which comes in any case.
    pub fn next_wake_ms(&self) -> Option<u64> {
        (!self.is_asking).then_some(self.next_ask_ms)
    }

    /// Takes one input, and says what to do.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Wake => {
                if !self.is_asking && now_ms >= self.next_ask_ms {
                    self.is_asking = true;
                    self.next_ask_ms = now_ms + RENEW_EVERY_MS;
                    out.push(Effect::Renew { asked_ms: now_ms });
                }
            }
            Input::Renewed { asked_ms } if now_ms >= self.until_ms => out.push(Effect::Check { asked_ms }),
            Input::Renewed { asked_ms } => {
                self.is_asking = false;
                self.until_ms = self.until_ms.max(until(asked_ms));
                out.push(Effect::Open {
                    until_ms: self.until_ms,
                });
            }
            Input::Checked { asked_ms } => {
                self.is_asking = false;
                // The check may have taken so long that the renewal is over too: then the next one is checked again.
                if now_ms < until(asked_ms) {
                    self.until_ms = until(asked_ms);
                    out.push(Effect::Open {
                        until_ms: self.until_ms,
                    });
                    out.push(Effect::Lift);
                } else {
                    self.next_ask_ms = now_ms;
                }
            }
            Input::Failed | Input::Unchecked => {
                self.is_asking = false;
                self.next_ask_ms = self.next_ask_ms.min(now_ms + AGAIN_MS);
            }
        }
    }
}

fn until(asked_ms: u64) -> u64 {
    asked_ms + LEASE_MS - MARGIN_MS
}

#[cfg(test)]
mod tests;
