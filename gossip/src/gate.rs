//! The gate: which handshakes that others begin are taken up. Pure. It knows addresses and nothing of who is behind them; that is what a
//! handshake is for.
//!
//! A handshake costs this node 1.2 ms of computing and 120 kB of memory before it can know a friend from a stranger, so strangers are
//! held off by three bounds: how many handshakes are under way, how many of one host, and how fast those of one host follow each other.
//! An address may be forged until its sender has shown that it gets what is sent there. So what a bound does to an address that is not
//! proved is to have it proved (QUIC's Retry, which costs us nothing to remember), and only a proved one is refused: nobody can use up
//! another host's share.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::bucket::Bucket;
use crate::suspicion::Time;

/// Handshakes that may be under way at once: 30 MB at worst.
const UNDER_WAY_MAX: usize = 256;

/// Of them, those of one host. The rest is for others, whatever one host does.
const UNDER_WAY_MAX_HOST: usize = 192;

/// From so many on, every address has to be proved. A forger can hold no more than these, each until its handshake times out.
const PROVE_FROM: usize = 64;

/// How fast handshakes of one host may follow each other in the long run, and at once. A restart of 100 nodes behind one address takes
/// 99 control and 99 data connections of each, and as many again where dials cross or are repeated: it fits the burst. What one host
/// can cost in the long run is 8 % of a core.
const HOST_INTERVAL: Duration = Duration::from_micros(15_625);
const HOST_BURST: u32 = 512;

/// Hosts that are remembered. A host is forgotten once its share is whole again, which after one handshake takes 16 ms.
const HOSTS_MAX: usize = 4_096;

/// What to do with a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take it up; `Gate::done` must follow.
    Admit,
    /// Have it prove its address and come again.
    Prove,
    /// There are too many, of this host or in all.
    Busy,
    /// This host begins them too fast.
    TooFast,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    hosts: BTreeMap<u128, Host>,
    under_way: usize,
    /// When hosts were last forgotten; it takes some 20 µs, too long for every datagram of a flood.
    swept_at: Time,
}

#[derive(Debug)]
struct Host {
    /// What comes from addresses that may be forged has a share of its own.
    unproved: Bucket,
    proved: Bucket,
    under_way: usize,
}

impl Host {
    fn new() -> Self {
        let share = || Bucket::new(HOST_INTERVAL, HOST_BURST);
        Self {
            unproved: share(),
            proved: share(),
            under_way: 0,
        }
    }

    fn is_idle(&self, now: Time) -> bool {
        self.under_way == 0 && self.unproved.is_full(now) && self.proved.is_full(now)
    }
}

/// One IPv4 address, or one IPv6 network of 64 bits: whoever has one address of it has all.
fn host_of(addr: IpAddr) -> u128 {
    match addr.to_canonical() {
        IpAddr::V4(addr) => u128::from(addr.to_ipv6_mapped()),
        IpAddr::V6(addr) => u128::from(addr) & !u128::from(u64::MAX),
    }
}

impl Gate {
    /// Judges a handshake from this address, which is proved or may be forged.
    pub(crate) fn knock(&mut self, now: Time, addr: IpAddr, proved: bool) -> Verdict {
        let key = host_of(addr);
        if !proved && self.under_way >= PROVE_FROM {
            return Verdict::Prove;
        }
        if self.under_way >= UNDER_WAY_MAX {
            return Verdict::Busy;
        }
        if !self.hosts.contains_key(&key) && self.hosts.len() >= HOSTS_MAX {
            if now >= self.swept_at + HOST_INTERVAL {
                self.swept_at = now;
                self.hosts.retain(|_, host| !host.is_idle(now));
            }
            if self.hosts.len() >= HOSTS_MAX {
                return if proved { Verdict::Busy } else { Verdict::Prove };
            }
        }
        let host = self.hosts.entry(key).or_insert_with(Host::new);
        if proved {
            if host.under_way >= UNDER_WAY_MAX_HOST {
                return Verdict::Busy;
            }
            if !host.proved.take(now, 1) {
                return Verdict::TooFast;
            }
        } else if !host.unproved.take(now, 1) {
            return Verdict::Prove;
        }
        host.under_way += 1;
        self.under_way += 1;
        Verdict::Admit
    }

    /// A handshake that was admitted has come to its end.
    pub(crate) fn done(&mut self, addr: IpAddr) {
        self.under_way -= 1;
        if let Some(host) = self.hosts.get_mut(&host_of(addr)) {
            host.under_way -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    const NOW: Time = Duration::from_secs(100);

    #[test]
    fn a_restart_of_a_hundred_nodes_behind_one_address_is_let_in() {
        let mut gate = Gate::default();
        // Every peer dials both connections within a second, and once more each; a handshake takes 20 ms on a busy machine.
        let mut refused = 0;
        for n in 0..396u32 {
            let at = NOW + Duration::from_millis(u64::from(n) * 1_000 / 396);
            if gate.knock(at, host(1), true) != Verdict::Admit {
                refused += 1;
            }
            if n >= 8 {
                gate.done(host(1));
            }
        }
        assert_eq!(refused, 0);
    }

    #[test]
    fn one_host_that_begins_too_fast_is_refused_and_others_are_not() {
        let mut gate = Gate::default();
        let mut admitted = 0;
        for n in 0..10_000u64 {
            let at = NOW + Duration::from_millis(n);
            match gate.knock(at, host(1), true) {
                Verdict::Admit => {
                    admitted += 1;
                    gate.done(host(1));
                }
                verdict => assert_eq!(verdict, Verdict::TooFast),
            }
            if n % 16 == 0 {
                assert_eq!(gate.knock(at, host(2), true), Verdict::Admit);
                gate.done(host(2));
            }
        }
        // The burst, and 64 a second for ten seconds.
        assert!((1_150..=1_153).contains(&admitted), "{admitted}");
    }

    #[test]
    fn handshakes_that_never_end_leave_room_for_other_hosts() {
        let mut gate = Gate::default();
        let count = |gate: &mut Gate, from: u32, proved, wanted| {
            (0..1_000)
                .filter(|_| gate.knock(NOW, host(from), proved) == wanted)
                .count()
        };
        assert_eq!(count(&mut gate, 1, true, Verdict::Admit), UNDER_WAY_MAX_HOST);
        // Nobody is taken at his word any more, and whoever proves his address is let in.
        assert_eq!(count(&mut gate, 2, false, Verdict::Prove), 1_000);
        assert_eq!(
            count(&mut gate, 2, true, Verdict::Admit),
            UNDER_WAY_MAX - UNDER_WAY_MAX_HOST
        );
        assert_eq!(gate.knock(NOW, host(3), true), Verdict::Busy);
        gate.done(host(1));
        assert_eq!(gate.knock(NOW, host(3), true), Verdict::Admit);
    }

    #[test]
    fn a_forger_does_not_use_up_the_share_of_the_host_that_it_names() {
        let mut gate = Gate::default();
        let mut admitted = 0;
        for _ in 0..10_000 {
            if gate.knock(NOW, host(1), false) == Verdict::Admit {
                admitted += 1;
                gate.done(host(1));
            }
        }
        assert_eq!(admitted, HOST_BURST);
        assert_eq!(gate.knock(NOW, host(1), false), Verdict::Prove);
        assert_eq!(gate.knock(NOW, host(1), true), Verdict::Admit);
    }

    #[test]
    fn forged_addresses_do_not_fill_the_memory_nor_shut_the_gate() {
        let mut gate = Gate::default();
        for n in 0..100_000u32 {
            if gate.knock(NOW, host(n), false) == Verdict::Admit {
                gate.done(host(n));
            }
        }
        assert_eq!(gate.hosts.len(), HOSTS_MAX);
        let later = NOW + HOST_INTERVAL;
        assert_eq!(gate.knock(later, IpAddr::from([192, 0, 2, 1]), true), Verdict::Admit);
        assert_eq!(gate.hosts.len(), 1);
    }

    #[test]
    fn a_network_of_64_bits_is_one_host() {
        let addr = |last: &str| format!("2001:db8:0:1:{last}").parse::<IpAddr>().unwrap();
        assert_eq!(host_of(addr("0:0:0:1")), host_of(addr("ffff:0:0:2")));
        assert_ne!(host_of(addr("0:0:0:1")), host_of("2001:db8:0:2::1".parse().unwrap()));
        assert_eq!(host_of("::ffff:10.0.0.1".parse().unwrap()), host_of(host(1)));
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_comes(
            knocks in prop::collection::vec((0u32..6, any::<bool>(), any::<bool>(), 0u64..20), 1..2_000),
        ) {
            let mut gate = Gate::default();
            let (mut now, mut open) = (NOW, Vec::new());
            for (from, proved, ends, pause_ms) in knocks {
                now += Duration::from_millis(pause_ms);
                if ends && let Some(ended) = open.pop() {
                    gate.done(ended);
                }
                if gate.knock(now, host(from), proved) == Verdict::Admit {
                    open.push(host(from));
                }
                prop_assert_eq!(gate.under_way, open.len());
                prop_assert!(open.len() <= UNDER_WAY_MAX);
                prop_assert!(gate.hosts.values().all(|host| host.under_way <= UNDER_WAY_MAX_HOST));
            }
            for ended in open {
                gate.done(ended);
            }
            prop_assert_eq!(gate.under_way, 0);
            prop_assert!(gate.hosts.values().all(|host| host.under_way == 0));
        }
    }
}
