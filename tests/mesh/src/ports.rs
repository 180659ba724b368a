//! Ports for processes of a test, which must be known before they run, or be had again after they were killed.
//!
//! A port that the system gave (port 0) goes to somebody else as soon as nobody has it: to another test's relay, to a connection
//! that goes out. So these come from below those that the systems give by themselves (Linux from 32,768, others from 49,152), and
//! each test process has a block of its own, which is its own as long as it holds the first port.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{LazyLock, Mutex};
use std::thread::sleep;

use crate::LOOK_EVERY;

const FIRST: u16 = 10_240;

/// How many ports are in a block. A port is given again only after all others were.
const BLOCK: u16 = 1_024;

const BLOCKS: u16 = 9;

/// The ports that are this process's.
#[derive(Debug)]
struct Block {
    /// Its first port. As long as it is bound, no other process takes the block.
    _held: TcpListener,
    first: u16,
    /// How many were tried, from the one after the first, round and round.
    tried: u16,
}

impl Block {
    /// Waits until there is one: other test processes end.
    fn take() -> Self {
        loop {
            for first in (0..BLOCKS).map(|block| FIRST + block * BLOCK) {
                if let Ok(held) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) {
                    return Self {
                        _held: held,
                        first,
                        tried: 0,
                    };
                }
            }
            sleep(LOOK_EVERY);
        }
    }

    fn next(&mut self) -> u16 {
        self.tried = self.tried % (BLOCK - 1) + 1;
        self.first + self.tried
    }
}

/// Returns consecutive ports of which nobody has one on any of this machine's addresses, neither for UDP nor for TCP. No other
/// test of this process and no other test process is given one of them until some thousand more were asked for.
///
/// # Panics
/// When there are not so many.
pub fn free_ports(count: usize) -> Vec<u16> {
    static BLOCK_OF_OURS: LazyLock<Mutex<Block>> = LazyLock::new(|| Mutex::new(Block::take()));
    let is_free = |port: u16| {
        let at = (Ipv4Addr::UNSPECIFIED, port);
        UdpSocket::bind(at).is_ok() && TcpListener::bind(at).is_ok()
    };
    let mut block = BLOCK_OF_OURS.lock().expect("no thread panics holding it");
    let mut run: Vec<u16> = Vec::new();
    for _ in 0..2 * BLOCK {
        if run.len() == count {
            return run;
        }
        let port = block.next();
        if run.last().is_some_and(|last| last + 1 != port) {
            run.clear();
        }
        if is_free(port) {
            run.push(port);
        } else {
            run.clear();
        }
    }
    panic!("there are no {count} free ports after {}", block.first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_given_in_a_row_and_not_again_for_a_long_time() {
        let runs: Vec<Vec<u16>> = (0..20).map(|_| free_ports(5)).collect();
        let all: BTreeSet<u16> = runs.iter().flatten().copied().collect();
        assert_eq!(all.len(), 100);
        // Round the block's end, too.
        for run in (0..BLOCK).map(|_| free_ports(5)) {
            assert!(run.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{run:?}");
        }
    }

    #[test]
    fn a_port_that_somebody_has_is_passed_over() {
        let at = |port| (Ipv4Addr::LOCALHOST, port);
        let datagrams = UdpSocket::bind(at(free_ports(1)[0])).expect("it is free");
        let streams = TcpListener::bind(at(free_ports(1)[0])).expect("it is free");
        let taken = [datagrams.local_addr(), streams.local_addr()].map(|addr| addr.expect("it is bound").port());
        for run in (0..BLOCK).map(|_| free_ports(3)) {
            assert!(
                !run.iter().any(|port| taken.contains(port)),
                "{run:?} has one of {taken:?}"
            );
            assert!(run.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{run:?}");
        }
    }
}
