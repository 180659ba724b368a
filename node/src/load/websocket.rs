//! The client's half of WebSocket framing (RFC 6455) and of its upgrade, on bytes alone: no sockets here. It knows exactly what the
//! generator needs, so it refuses fragments and extensions. Masks are zero, which the protocol allows and which spares the
//! generator a pass over every byte; the server's work is the same.

use anyhow::{Context, bail};

/// The key of RFC 6455's example, and the answer that a server computes from it. A fixed key saves a hash a connection; the
/// answer is still checked, so that something that is no WebSocket server is noticed.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Larger upgrade answers are not from a WebSocket server.
const UPGRADE_BYTES_MAX: usize = 16 * 1024;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// One frame from the server, still in the buffer it was read into.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) payload: &'a [u8],
    /// How many bytes of the buffer the frame took, its header included.
    pub(crate) bytes: usize,
}

/// Reads the frame at the start of `buffer`; none when it has not all arrived.
pub(crate) fn read_frame(buffer: &[u8]) -> anyhow::Result<Option<Frame<'_>>> {
    let [first, second, rest @ ..] = buffer else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 {
        bail!("a fragmented or compressed frame, which nobody asked for (first byte {first:#04x})");
    }
    if second & 0x80 != 0 {
        bail!("a masked frame from a server");
    }
    let opcode = match first & 0x0f {
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xa => Opcode::Pong,
        other => bail!("a frame of unknown kind {other:#x}"),
    };
    let (length, rest, header) = match (second & 0x7f, rest) {
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest, 4),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest, 10),
        (126 | 127, _) => return Ok(None),
        (short, rest) => (u64::from(short), rest, 2),
    };
    let length = usize::try_from(length).context("a frame longer than memory")?;
    Ok(rest.get(..length).map(|payload| Frame {
        opcode,
        payload,
        bytes: header + length,
    }))
}

/// Appends one whole frame, masked with zero.
pub(crate) fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let kind = match opcode {
        Opcode::Text => 0x1,
        Opcode::Binary => 0x2,
        Opcode::Close => 0x8,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xa,
    };
    out.push(0x80 | kind);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => out.push(0x80 | short),
        (_, Ok(medium)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// The HTTP request that asks for a WebSocket.
pub(crate) fn upgrade_request(host: &str, path: &str, subprotocol: Option<&str>) -> String {
    let subprotocol = subprotocol
        .map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"))
        .unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n{subprotocol}\r\n"
    )
}

/// Checks the server's answer at the start of `buffer` and says how long it is; none when it has not all arrived.
pub(crate) fn read_upgrade(buffer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        if buffer.len() > UPGRADE_BYTES_MAX {
            bail!("the answer to the upgrade does not end");
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(&buffer[..end]).context("the answer to the upgrade is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        let body = String::from_utf8_lossy(&buffer[end + 4..]);
        bail!("the upgrade was refused: {status} {body}");
    }
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT);
    if !accepted {
        bail!("the server answered the upgrade with a wrong Sec-WebSocket-Accept");
    }
    Ok(Some(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Undoes what a client adds, so that what we write can be read by what we read.
    fn as_from_server(frame: &[u8]) -> Vec<u8> {
        let extended = match frame[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut unmasked = frame.to_vec();
        unmasked[1] &= 0x7f;
        assert_eq!(unmasked.drain(2 + extended..6 + extended).collect::<Vec<_>>(), [0; 4]);
        unmasked
    }

    #[test]
    fn frames_of_every_length_form_read_back() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload = vec![b'x'; length];
            let mut written = Vec::new();
            write_frame(&mut written, Opcode::Binary, &payload);
            let mut bytes = as_from_server(&written);
            let whole = bytes.len();
            bytes.push(0x81);
            let frame = read_frame(&bytes).unwrap().unwrap();
            assert_eq!(
                frame,
                Frame {
                    opcode: Opcode::Binary,
                    payload: &payload,
                    bytes: whole
                }
            );
            for cut in [0, 1, 2, 3, whole - 1] {
                if cut < whole {
                    assert_eq!(read_frame(&bytes[..cut]).unwrap(), None, "{length} bytes cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        for bad in [
            &[0x01, 0x00][..],
            &[0xc1, 0x00],
            &[0x81, 0x80, 0, 0, 0, 0],
            &[0x83, 0x00],
        ] {
            assert!(read_frame(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_upgrade_is_accepted_only_with_the_right_answer() {
        let good =
            format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n");
        assert_eq!(read_upgrade(good.as_bytes()).unwrap(), Some(good.len()));
        assert_eq!(read_upgrade(&good.as_bytes()[..40]).unwrap(), None);
        assert!(read_upgrade(good.replace("s3pP", "xxxx").as_bytes()).is_err());
        assert!(read_upgrade(b"HTTP/1.1 404 Not Found\r\n\r\nno").is_err());
        assert!(
            upgrade_request("h:1", "/v1/ws", Some("rookery.v1.json")).contains("Protocol: rookery.v1.json\r\n\r\n")
        );
    }
}
