//! The leader: one node at a time, for duties that must happen once (placing zones, moving them, sweeping old records).
//!
//! Pure: [`Candidacy`] is one node's part in it. It is given the time and the store's answers, and says what to ask and whether
//! this node leads. The leader's lease is a row that counts by the database's clock; here it counts from when we *asked*, and
//! we stop [`MARGIN_MS`] before it ends, so that at no time two nodes lead, whatever was delayed, paused or lost.
//!
//! It is not what makes the duties safe: each of them is one statement in the store that assumes nothing but what it names (a
//! unique name, an epoch), and so is harmless when it comes late. The leader is why it is not done three times over.

#![deny(clippy::disallowed_methods)]

// The driver has a clock.
#[allow(clippy::disallowed_methods)]
mod task;
#[cfg(test)]
mod tests;

use rookery_protocol::{NodeLife, NodeName};

pub use self::task::Leader;

/// How long a lease is. With it a leader that was killed has a successor within [`TTL_MS`] + [`LOOK_EVERY_MS`], below 10 s.
pub const TTL_MS: u64 = 6_000;

/// How often the leader renews: two tries may fail before it has to stop.
pub const RENEW_EVERY_MS: u64 = 1_500;

/// How often the others look who leads.
pub const LOOK_EVERY_MS: u64 = 1_000;

/// A leader stops this long before its lease ends: for what it began just before, and for clocks that do not run alike.
pub const MARGIN_MS: u64 = 1_000;

/// A question of which nothing was heard for so long is asked again. The store answers or gives up sooner.
const LOST_AFTER_MS: u64 = 10_000;

/// How the lease stands, as the store answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// None when nobody holds it now.
    pub holder: Option<NodeLife>,
    pub epoch: u64,
    /// How long the holder still has it.
    pub left_ms: u64,
}

/// What a candidate hears. Times are milliseconds of a clock that goes on while the node is suspended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Wake,
    /// Whether this node may lead: it is ready.
    Eligible(bool),
    /// The node drains or stops: it wins nothing any more.
    Resign,
    /// The store answered, or failed to (none), what was asked at `asked_ms`.
    Answered {
        asked_ms: u64,
        standing: Option<Standing>,
    },
}

/// What ought to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Take or renew the lease for [`TTL_MS`].
    Acquire { asked_ms: u64 },
    /// Read how the lease stands.
    Look { asked_ms: u64 },
    /// Give the lease up.
    Release { epoch: u64 },
}

/// A leadership, as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    pub epoch: u64,
    /// When we stop, if we do not renew.
    pub until_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Acquire,
    Look,
}

/// One node's part in who leads.
#[derive(Debug)]
pub struct Candidacy {
    me: NodeLife,
    /// Added to the end of another's lease, so that not all candidates come at once.
    patience_ms: u64,
    eligible: bool,
    resigned: bool,
    term: Option<Term>,
    asked: Option<(u64, Question)>,
    /// When to ask next.
    ask_at_ms: u64,
    /// Whom the store last named, and until when that may be believed.
    named: Option<(NodeName, u64)>,
}

impl Candidacy {
    /// A node that is not eligible yet.
    pub fn new(me: NodeLife, patience_ms: u64) -> Self {
        Self {
            me,
            patience_ms,
            eligible: false,
            resigned: false,
            term: None,
            asked: None,
            ask_at_ms: 0,
            named: None,
        }
    }

    /// The term in which this node leads now.
    pub fn term(&self, now_ms: u64) -> Option<Term> {
        self.term.filter(|term| self.eligible && now_ms < term.until_ms)
    }

    /// Who leads, as far as is known here.
    pub fn leader(&self, now_ms: u64) -> Option<&NodeName> {
        let named = self.named.as_ref().filter(|(_, until_ms)| now_ms < *until_ms);
        named.map(|(name, _)| name)
    }

    /// Takes one input and says what ought to happen.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Wake => {}
            Input::Eligible(eligible) => self.set_eligible(now_ms, eligible && !self.resigned, out),
            Input::Resign => {
                self.resigned = true;
                self.set_eligible(now_ms, false, out);
            }
            Input::Answered { asked_ms, standing } => self.answered(now_ms, asked_ms, standing, out),
        }
        if self.term.is_some_and(|term| now_ms >= term.until_ms) {
            self.term = None;
        }
        if self
            .asked
            .is_some_and(|(asked_ms, _)| now_ms >= asked_ms + LOST_AFTER_MS)
        {
            self.asked = None;
        }
        if self.asked.is_none() && now_ms >= self.ask_at_ms {
            self.ask(now_ms, out);
        }
    }

    /// When [`Input::Wake`] is due if nothing else comes first.
    pub fn next_wake_ms(&self) -> u64 {
        let asks_ms = match self.asked {
            Some((asked_ms, _)) => asked_ms + LOST_AFTER_MS,
            None => self.ask_at_ms,
        };
        self.term.map_or(asks_ms, |term| asks_ms.min(term.until_ms))
    }

    fn set_eligible(&mut self, now_ms: u64, eligible: bool, out: &mut Vec<Effect>) {
        if self.eligible == eligible {
            return;
        }
        self.eligible = eligible;
        if eligible {
            self.ask_at_ms = now_ms;
        } else if let Some(term) = self.term.take() {
            out.push(Effect::Release { epoch: term.epoch });
            self.named = None;
        }
    }

    fn ask(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let is_taken = self.leader(now_ms).is_some_and(|leader| *leader != self.me.name);
        let question = if self.eligible && !is_taken {
            Question::Acquire
        } else {
            Question::Look
        };
        self.asked = Some((now_ms, question));
        out.push(match question {
            Question::Acquire => Effect::Acquire { asked_ms: now_ms },
            Question::Look => Effect::Look { asked_ms: now_ms },
        });
    }

    fn answered(&mut self, now_ms: u64, asked_ms: u64, standing: Option<Standing>, out: &mut Vec<Effect>) {
        let Some((_, question)) = self.asked.filter(|(asked, _)| *asked == asked_ms) else {
            // Given up as lost. If it made us the holder, the next question renews that.
            return;
        };
        self.asked = None;
        let Some(standing) = standing else {
            self.ask_at_ms = now_ms + LOOK_EVERY_MS / 2;
            return;
        };
        self.named = standing
            .holder
            .as_ref()
            .map(|holder| (holder.name.clone(), asked_ms + standing.left_ms));
        match (&standing.holder, question) {
            (Some(holder), Question::Acquire) if *holder == self.me => {
                if !self.eligible {
                    // Ours by a question that was on its way when we ceased to be eligible.
                    out.push(Effect::Release { epoch: standing.epoch });
                    self.named = None;
                    self.ask_at_ms = now_ms + LOOK_EVERY_MS;
                    return;
                }
                self.term = Some(Term {
                    epoch: standing.epoch,
                    until_ms: asked_ms + TTL_MS - MARGIN_MS,
                });
                self.ask_at_ms = asked_ms + RENEW_EVERY_MS;
            }
            // A lease that we do not know we hold: an answer was lost. Renewing says how it stands.
            (Some(holder), Question::Look) if *holder == self.me && self.eligible => self.ask_at_ms = now_ms,
            (Some(_), _) => {
                self.term = None;
                // Not later than when it is over, and then after a moment that differs from node to node.
                let over_ms = asked_ms + standing.left_ms + self.patience_ms;
                self.ask_at_ms = over_ms.min(now_ms + LOOK_EVERY_MS);
            }
            (None, _) => {
                self.term = None;
                self.ask_at_ms = if self.eligible {
                    now_ms + self.patience_ms
                } else {
                    now_ms + LOOK_EVERY_MS
                };
            }
        }
    }
}
