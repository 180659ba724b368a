//! Ports for nodes that must know each other's before any of them runs.

use std::net::{Ipv4Addr, UdpSocket};

/// Returns different UDP ports that were free on all of loopback a moment ago.
pub fn free_udp_ports(count: usize) -> Vec<u16> {
    let bind = |_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("there are free ports");
    // All are held until all are known, so that they differ.
    let held: Vec<UdpSocket> = (0..count).map(bind).collect();
    held.iter()
        .map(|socket| socket.local_addr().expect("it is bound").port())
        .collect()
}
