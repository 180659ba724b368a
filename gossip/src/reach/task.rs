//! Carries the messages of the mesh's own directory: tells it which groups were joined and left, sends what it has to say, and hands
//! what it heard to whoever waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Inner, Reach, WATCHED_FOR};
use crate::audience::key_of;
use crate::directory::Key;
use crate::error::SendError;
use crate::inbound::Channel;
use crate::link::Links;
use crate::member::{MemberState, Members};
use crate::suspicion::Time;

/// How long changes are collected before they are said: at 1,000 groups joined and left a second a message tells of 50.
const COLLECT_FOR: Duration = Duration::from_millis(25);

/// The same while somebody waits for an answer.
const COLLECT_BRIEFLY: Duration = Duration::from_millis(1);

/// Between two tries of a node whose queue is full, if it does not say earlier that it has room.
const FULL_FOR: Duration = Duration::from_millis(100);

/// How often groups that nobody wants to reach any more are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// Which version of the mesh knows of groups in the directory.
const SINCE: u32 = 2;

/// Runs until it is dropped. `links` is where its messages go.
pub(crate) async fn run(reach: &Reach, links: &Links, mut members: watch::Receiver<Arc<Members>>) {
    let mut known = members.borrow_and_update().clone();
    reach.take_members(&known);
    let (mut retry_at, mut forget_at): (Option<Time>, Time) = (None, FORGET_EVERY);
    loop {
        let (due, collect_for) = reach.next(retry_at);
        tokio::select! {
            () = reach.mail.notified() => sleep(collect_for).await,
            () = sleep(due.saturating_sub(reach.now())) => {}
            changed = members.changed() => {
                if changed.is_err() {
                    // The mesh has stopped.
                    return;
                }
            }
        }
        let now_known = members.borrow_and_update().clone();
        if !Arc::ptr_eq(&known, &now_known) {
            reach.take_members(&now_known);
            known = now_known;
        }
        reach.take_unsaid();
        reach.hear(links);
        retry_at = reach.post(links).then(|| reach.now() + FULL_FOR);
        if reach.now() >= forget_at {
            forget_at = reach.now() + FORGET_EVERY;
            reach.forget();
        }
    }
}

impl Reach {
    /// When there is something to do, and how long to collect what comes meanwhile.
    fn next(&self, retry_at: Option<Time>) -> (Time, Duration) {
        let inner = self.inner();
        let late = inner.audiences.next_late();
        let due = inner.directory.next_wake();
        let due = [late, retry_at].into_iter().flatten().fold(due, Time::min);
        (due, if late.is_some() { COLLECT_BRIEFLY } else { COLLECT_FOR })
    }

    /// A node of a version before keeps no groups for us: it does not know the channel that they come on.
    fn take_members(&self, members: &Members) {
        let mut members = members.clone();
        for member in members.by_node.values_mut() {
            let takes_part = member.mesh_version >= SINCE;
            if !takes_part
                && matches!(
                    member.state,
                    MemberState::Ready | MemberState::Draining | MemberState::Suspect
                )
            {
                member.state = MemberState::Joining;
            }
        }
        self.inner().directory.members(self.now(), &members);
    }

    /// Tells the directory which groups were joined and left.
    fn take_unsaid(&self) {
        let unsaid = self.own.lock().expect("nothing panics under this lock").take_unsaid();
        if unsaid.is_empty() {
            return;
        }
        let (mut inner, now) = (self.inner(), self.now());
        for (group, count) in unsaid {
            match count {
                Some(count) => {
                    let value = Bytes::from(count.to_string());
                    inner.directory.hold(now, key_of(&group), 0, value);
                }
                None => inner.directory.release(now, key_of(&group)),
            }
        }
    }

    /// Hands on what was heard.
    fn hear(&self, links: &Links) {
        let (mut inner, now) = (self.inner(), self.now());
        inner.directory.wake(now);
        for key in inner.directory.take_changed() {
            if inner.audiences.is_asking(key) {
                continue;
            }
            let group = inner.audiences.group(key);
            if let Some(known) = group.and_then(|group| self.known.get(group)) {
                known.nodes.store(Arc::new(self.holders(&inner, key)));
            }
        }
        let answered = |inner: &Inner| -> Vec<Key> {
            let unanswered = |key: &Key| inner.directory.unanswered(*key);
            inner.audiences.asking().filter(|key| unanswered(key) == 0).collect()
        };
        for key in answered(&inner).into_iter().chain(inner.audiences.late(now)) {
            self.settle(&mut inner, links, key);
        }
    }

    /// Sends what waits. What a node has no room for waits on; says whether there was any.
    fn post(&self, links: &Links) -> bool {
        let mut full = BTreeSet::new();
        loop {
            let mail = self.inner().directory.mail(self.now());
            if mail.is_empty() {
                return false;
            }
            for (node, message) in mail {
                if full.contains(&node) {
                    self.inner().directory.put_back(&node, &message);
                    continue;
                }
                match links.send(&node, Channel::DIRECTORY, message.encode()) {
                    Ok(()) => {}
                    Err(SendError::Full) => {
                        self.inner().directory.put_back(&node, &message);
                        full.insert(node);
                    }
                    // Gone, or not met yet: a new connection says everything again.
                    Err(error @ (SendError::UnknownNode { .. } | SendError::TooLarge { .. } | SendError::Closed)) => {
                        tracing::debug!(%node, %error, "a message of the directory of groups went nowhere");
                    }
                }
            }
            if !full.is_empty() {
                return true;
            }
        }
    }

    /// Stops watching what nobody wants to reach.
    fn forget(&self) {
        let (mut inner, now) = (self.inner(), self.now());
        let since = now.saturating_sub(WATCHED_FOR).as_millis();
        for group in self.known.take_unused(u64::try_from(since).unwrap_or(u64::MAX)) {
            let key = key_of(&group);
            inner.audiences.forget(key);
            inner.directory.unwatch(now, key);
        }
    }
}

/// Whether some node here does not know of groups in the directory. One that has not yet said anything is not counted.
pub(crate) fn has_elders(members: &Members) -> bool {
    members.iter().any(|member| {
        let says_something = matches!(
            member.state,
            MemberState::Ready | MemberState::Draining | MemberState::Suspect
        );
        says_something && member.mesh_version < SINCE
    })
}
