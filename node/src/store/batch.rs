//! Group commit: writes that come in crowds wait in one bounded queue, and one task takes what is waiting into one transaction.
//!
//! One miss (a name that is taken, an epoch that is over) fails one caller and not the group, because the statements skip it
//! and say so. When a statement fails as a whole, the group's members are tried one by one. Members are in key order, so that
//! the groups of two nodes never wait for each other in a circle, and no two members of a group have the same key. A write
//! whose caller has given up is not made.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rookery_protocol::{MatchId, PlayerId, TicketId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::chat::{NewLine, WrittenLine};
use super::effects::Fenced;
use super::matches::{Cas, CreateMatchError, Created, Finish, NewMatch, SetRunning};
use super::players::{AccountOutcome, CredentialKind, NewAccount};
use super::sql::{Database, Transaction};
use super::tickets::{NewTickets, QueueOutcome};
use super::values::{ValueKey, ValueWrite, WriteOutcome};
use super::{Observe, Store, StoreError, chat, deadline, matches, players, tickets, timed, transact, values};

/// Writes that may wait. At 4,000 writes a second this is one second's worth; more would only be answered too late.
const QUEUE_LEN_MAX: usize = 4_096;

/// Writes in one transaction.
const GROUP_LEN_MAX: usize = 256;

/// A group that took longer than this halves the next one: SQLite's other processes wait meanwhile.
const GROUP_BUSY_MAX: Duration = Duration::from_millis(20);

/// How often a group is tried again after a collision with another node's transaction.
const COLLISIONS_MAX: u32 = 2;

/// Where a write's answer goes.
pub(super) type Reply<R> = oneshot::Sender<Result<R, StoreError>>;

/// One write and where its answer goes.
pub(super) enum Write {
    Create(Box<NewMatch>, Reply<Result<Created, CreateMatchError>>),
    SetRunning(SetRunning, Reply<Cas>),
    Finish(Box<Finish>, Reply<Cas>),
    Account(Box<NewAccount>, Reply<AccountOutcome>),
    Value(Box<ValueWrite>, Reply<Result<WriteOutcome, Fenced>>),
    Line(Box<NewLine>, Reply<Result<WrittenLine, Fenced>>),
    Tickets(Box<NewTickets>, Reply<QueueOutcome>),
}

/// What a write is about; two writes about the same thing are never in one group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Match(MatchId),
    Credential(CredentialKind, String),
    Player(PlayerId),
    Value(ValueKey),
    /// The lines of one channel share a group: each is a row of its own. They keep the order of their arrival.
    Line {
        arrival: u64,
    },
    Ticket(Option<TicketId>),
}

impl Write {
    fn key(&self, arrival: u64) -> Key {
        match self {
            Self::Create(new, _) => Key::Match(new.id),
            Self::SetRunning(start, _) => Key::Match(start.id),
            Self::Finish(finish, _) => Key::Match(finish.id),
            Self::Account(new, _) => match &new.credential {
                Some(credential) => Key::Credential(credential.kind, credential.key.clone()),
                None => Key::Player(new.player),
            },
            Self::Value(write, _) => Key::Value(write.key.clone()),
            Self::Line(..) => Key::Line { arrival },
            Self::Tickets(new, _) => Key::Ticket(new.players.first().map(|first| first.id)),
        }
    }

    fn is_given_up(&self) -> bool {
        match self {
            Self::Create(_, reply) => reply.is_closed(),
            Self::SetRunning(_, reply) | Self::Finish(_, reply) => reply.is_closed(),
            Self::Account(_, reply) => reply.is_closed(),
            Self::Value(_, reply) => reply.is_closed(),
            Self::Line(_, reply) => reply.is_closed(),
            Self::Tickets(_, reply) => reply.is_closed(),
        }
    }
}

/// The way into the queue.
pub(super) struct Queue {
    writes: mpsc::Sender<Write>,
}

impl Store {
    /// Queues a write and waits for its answer.
    pub(super) async fn submit<R>(
        &self,
        operation: &'static str,
        write: impl FnOnce(Reply<R>) -> Write,
    ) -> Result<R, StoreError> {
        let (reply, answer) = oneshot::channel();
        let (queue, refused_total) = (&self.inner.batch.writes, &self.inner.refused_total);
        self.timed(operation, self.deadline(), async move {
            queue.try_send(write(reply)).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    refused_total.fetch_add(1, Ordering::Relaxed);
                    StoreError::Busy
                }
                mpsc::error::TrySendError::Closed(_) => StoreError::closed(),
            })?;
            answer.await.map_err(|_| StoreError::closed())?
        })
        .await
    }
}

/// Starts the task. It ends, after writing what is waiting, when the store closes.
pub(super) fn start(
    database: Arc<Database>,
    observe: Option<Observe>,
    closing: CancellationToken,
    tasks: &TaskTracker,
) -> Queue {
    let (writes, waiting) = mpsc::channel(QUEUE_LEN_MAX);
    tasks.spawn(run(database, observe, closing, waiting));
    Queue { writes }
}

async fn run(
    database: Arc<Database>,
    observe: Option<Observe>,
    closing: CancellationToken,
    mut waiting: mpsc::Receiver<Write>,
) {
    let mut held_back = VecDeque::new();
    let mut len_max = GROUP_LEN_MAX;
    loop {
        if held_back.is_empty() {
            let first = tokio::select! {
                biased;
                first = waiting.recv() => first,
                () = closing.cancelled(), if !waiting.is_closed() => {
                    waiting.close();
                    continue;
                }
            };
            match first {
                Some(first) => held_back.push_back(first),
                None => return,
            }
        }
        let group = gather(&mut held_back, &mut waiting, len_max);
        if group.is_empty() {
            continue;
        }
        let began = Instant::now();
        commit(&database, observe.as_ref(), Group::of(group)).await;
        len_max = if began.elapsed() > GROUP_BUSY_MAX {
            (len_max / 2).max(1)
        } else {
            (len_max * 2).min(GROUP_LEN_MAX)
        };
    }
}

/// Takes what is waiting, up to `len_max`, and leaves in `held_back` what has the key of one that was taken: it goes into a
/// later group, in the order of its arrival.
fn gather(held_back: &mut VecDeque<Write>, waiting: &mut mpsc::Receiver<Write>, len_max: usize) -> Vec<Write> {
    let mut taken = BTreeSet::new();
    let mut group = Vec::new();
    let mut later = VecDeque::new();
    let mut arrival = 0;
    while group.len() < len_max && later.len() < len_max {
        let Some(write) = held_back.pop_front().or_else(|| waiting.try_recv().ok()) else {
            break;
        };
        if write.is_given_up() {
            continue;
        }
        let key = write.key(arrival);
        arrival += 1;
        if taken.contains(&key) {
            later.push_back(write);
        } else {
            taken.insert(key.clone());
            group.push((key, write));
        }
    }
    // What was held back and not looked at came after what was.
    later.append(held_back);
    *held_back = later;
    group.sort_by(|(a, _), (b, _)| a.cmp(b));
    group.into_iter().map(|(_, write)| write).collect()
}

/// Writes of one kind and their callers, in the same order.
struct Lot<T, R> {
    writes: Vec<T>,
    replies: Vec<Reply<R>>,
}

impl<T, R> Lot<T, R> {
    fn new() -> Self {
        Self {
            writes: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn push(&mut self, write: T, reply: Reply<R>) {
        self.writes.push(write);
        self.replies.push(reply);
    }

    /// Tells each caller its own answer. A caller that gave up meanwhile does not hear it.
    fn answer(self, answers: Vec<R>) {
        for (reply, answer) in self.replies.into_iter().zip(answers) {
            let _ = reply.send(Ok(answer));
        }
    }

    fn fail(self, error: &StoreError) {
        for reply in self.replies {
            let _ = reply.send(Err(error.clone()));
        }
    }

    fn into_pairs(self) -> impl Iterator<Item = (T, Reply<R>)> {
        self.writes.into_iter().zip(self.replies)
    }
}

/// What goes into one transaction.
struct Group {
    creates: Lot<Box<NewMatch>, Result<Created, CreateMatchError>>,
    starts: Lot<SetRunning, Cas>,
    ends: Lot<Box<Finish>, Cas>,
    accounts: Lot<Box<NewAccount>, AccountOutcome>,
    values: Lot<Box<ValueWrite>, Result<WriteOutcome, Fenced>>,
    lines: Lot<Box<NewLine>, Result<WrittenLine, Fenced>>,
    tickets: Lot<Box<NewTickets>, QueueOutcome>,
}

/// The answers to a group, in its order.
struct Answers {
    creates: Vec<Result<Created, CreateMatchError>>,
    starts: Vec<Cas>,
    ends: Vec<Cas>,
    accounts: Vec<AccountOutcome>,
    values: Vec<Result<WriteOutcome, Fenced>>,
    lines: Vec<Result<WrittenLine, Fenced>>,
    tickets: Vec<QueueOutcome>,
}

impl Group {
    fn of(writes: impl IntoIterator<Item = Write>) -> Self {
        let mut group = Self {
            creates: Lot::new(),
            starts: Lot::new(),
            ends: Lot::new(),
            accounts: Lot::new(),
            values: Lot::new(),
            lines: Lot::new(),
            tickets: Lot::new(),
        };
        for write in writes {
            match write {
                Write::Create(new, reply) => group.creates.push(new, reply),
                Write::SetRunning(start, reply) => group.starts.push(start, reply),
                Write::Finish(finish, reply) => group.ends.push(finish, reply),
                Write::Account(new, reply) => group.accounts.push(new, reply),
                Write::Value(write, reply) => group.values.push(write, reply),
                Write::Line(line, reply) => group.lines.push(line, reply),
                Write::Tickets(new, reply) => group.tickets.push(new, reply),
            }
        }
        group
    }

    fn len(&self) -> usize {
        self.creates.writes.len()
            + self.starts.writes.len()
            + self.ends.writes.len()
            + self.accounts.writes.len()
            + self.values.writes.len()
            + self.lines.writes.len()
            + self.tickets.writes.len()
    }

    async fn apply(&self, transaction: &mut Transaction) -> Result<Answers, StoreError> {
        // An empty lot costs no statement.
        macro_rules! apply {
            ($lot:ident, $apply:path) => {
                if self.$lot.writes.is_empty() {
                    Vec::new()
                } else {
                    $apply(transaction, &self.$lot.writes).await?
                }
            };
        }
        Ok(Answers {
            creates: apply!(creates, matches::insert),
            starts: apply!(starts, matches::set_running),
            ends: apply!(ends, matches::finish),
            accounts: apply!(accounts, players::open),
            values: apply!(values, values::write),
            lines: apply!(lines, chat::append),
            tickets: apply!(tickets, tickets::insert),
        })
    }

    fn answer(self, answers: Answers) {
        self.creates.answer(answers.creates);
        self.starts.answer(answers.starts);
        self.ends.answer(answers.ends);
        self.accounts.answer(answers.accounts);
        self.values.answer(answers.values);
        self.lines.answer(answers.lines);
        self.tickets.answer(answers.tickets);
    }

    fn fail(self, error: &StoreError) {
        self.creates.fail(error);
        self.starts.fail(error);
        self.ends.fail(error);
        self.accounts.fail(error);
        self.values.fail(error);
        self.lines.fail(error);
        self.tickets.fail(error);
    }

    fn into_singles(self) -> Vec<Group> {
        let creates = self.creates.into_pairs().map(|(new, reply)| Write::Create(new, reply));
        let starts = self
            .starts
            .into_pairs()
            .map(|(start, reply)| Write::SetRunning(start, reply));
        let ends = self
            .ends
            .into_pairs()
            .map(|(finish, reply)| Write::Finish(finish, reply));
        let accounts = self
            .accounts
            .into_pairs()
            .map(|(new, reply)| Write::Account(new, reply));
        let values = self
            .values
            .into_pairs()
            .map(|(write, reply)| Write::Value(write, reply));
        let lines = self.lines.into_pairs().map(|(line, reply)| Write::Line(line, reply));
        let tickets = self.tickets.into_pairs().map(|(new, reply)| Write::Tickets(new, reply));
        let writes = creates
            .chain(starts)
            .chain(ends)
            .chain(accounts)
            .chain(values)
            .chain(lines)
            .chain(tickets);
        writes.map(|write| Group::of([write])).collect()
    }
}

async fn commit(database: &Database, observe: Option<&Observe>, group: Group) {
    match attempt(database, observe, &group).await {
        Ok(answers) => group.answer(answers),
        Err(error) if group.len() == 1 || error.is_unavailable() => group.fail(&error),
        Err(error) => {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                len = group.len(),
                "group failed, trying singly"
            );
            for single in group.into_singles() {
                match attempt(database, observe, &single).await {
                    Ok(answers) => single.answer(answers),
                    Err(error) => single.fail(&error),
                }
            }
        }
    }
}

async fn attempt(database: &Database, observe: Option<&Observe>, group: &Group) -> Result<Answers, StoreError> {
    let mut collisions = 0;
    loop {
        let work = transact(database, async |transaction| group.apply(transaction).await);
        match timed(observe, "batch", deadline(database), work).await {
            Err(StoreError::Collision { .. }) if collisions < COLLISIONS_MAX => collisions += 1,
            result => return result,
        }
    }
}
