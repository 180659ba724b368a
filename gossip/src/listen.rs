//! What a node's mesh hears and speaks through: a bound UDP socket, or, under the feature `sim`, a socket of a simulated network.

use std::net::UdpSocket;
use std::sync::Arc;
use std::{fmt, io};

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};

/// What the kernel is asked to keep of a burst; it may grant less.
const SOCKET_BUFFER: usize = 4 << 20;

/// Is the one socket that all traffic between nodes goes through. A bound [`UdpSocket`] is one.
pub struct Listen(Source);

enum Source {
    Udp(UdpSocket),
    #[cfg(feature = "sim")]
    Abstract(Arc<dyn AsyncUdpSocket>),
}

impl Listen {
    /// Takes a socket that is not the kernel's.
    #[cfg(feature = "sim")]
    pub(crate) fn from_abstract(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self(Source::Abstract(socket))
    }

    /// The socket as QUIC wants it. Must be called within the runtime that is to drive it.
    pub(crate) fn into_socket(self) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        match self.0 {
            Source::Udp(socket) => {
                socket.set_nonblocking(true)?;
                grow_buffers(&socket);
                TokioRuntime.wrap_udp_socket(socket)
            }
            #[cfg(feature = "sim")]
            Source::Abstract(socket) => Ok(socket),
        }
    }
}

impl From<UdpSocket> for Listen {
    fn from(socket: UdpSocket) -> Self {
        Self(Source::Udp(socket))
    }
}

impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Udp(socket) => socket.fmt(f),
            #[cfg(feature = "sim")]
            Source::Abstract(socket) => socket.fmt(f),
        }
    }
}

fn grow_buffers(socket: &UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    // Best effort: a smaller buffer costs throughput under bursts, nothing else.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
}
