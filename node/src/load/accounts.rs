//! Guest accounts for a run, made over plain HTTP before anything is measured. Several connections at once, because the server groups
//! writes that come together; the threads are gone when the run begins.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::swarm::Target;

/// Connections that make accounts side by side.
const MAKERS: usize = 32;

/// An answer about one account is never longer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes `count` guests, spread over the targets, and returns their access tokens.
pub(crate) fn guests(targets: &[Target], count: usize) -> anyhow::Result<Vec<String>> {
    let share = count.div_ceil(MAKERS).max(1);
    thread::scope(|scope| {
        let makers: Vec<_> = (0..count)
            .step_by(share)
            .enumerate()
            .map(|(maker, first)| {
                let target = &targets[maker % targets.len()];
                scope.spawn(move || make(target, first..count.min(first + share)))
            })
            .collect();
        let mut tokens = Vec::with_capacity(count);
        for maker in makers {
            let made = maker
                .join()
                .map_err(|_| anyhow::anyhow!("a thread that makes accounts has panicked"))?;
            tokens.extend(made.context("cannot make guest accounts")?);
        }
        Ok(tokens)
    })
}

fn make(target: &Target, numbers: std::ops::Range<usize>) -> anyhow::Result<Vec<String>> {
    let stream = TcpStream::connect(target.addr).with_context(|| format!("no server at {}", target.host))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut tokens = Vec::with_capacity(numbers.len());
    for number in numbers {
        loop {
            let body = format!(r#"{{"name":"load {number}"}}"#);
            let request = format!(
                "POST /v1/auth/guest HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                target.host,
                body.len()
            );
            writer.write_all(request.as_bytes())?;
            let (status, answer) = read_answer(&mut reader)?;
            match status {
                200 => tokens.push(serde_json::from_slice::<Account>(&answer)?.access_token),
                // The default limit is meant for people; a long run waits here rather than failing.
                429 => {
                    let refusal: Refusal = serde_json::from_slice(&answer).unwrap_or_default();
                    thread::sleep(Duration::from_millis(refusal.details.retry_ms.unwrap_or(500).max(1)));
                    continue;
                }
                _ => bail!("the server answered {status}: {}", String::from_utf8_lossy(&answer)),
            }
            break;
        }
    }
    Ok(tokens)
}

#[derive(Debug, Deserialize)]
struct Account {
    access_token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    details: super::wire::Details,
}

/// Reads one HTTP answer with a length; the server under test sends no other kind here.
fn read_answer(reader: &mut impl BufRead) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).context("no answer")?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("not an HTTP answer: {line:?}"))?;
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            bail!("the answer ends in its head");
        }
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("a bad Content-Length")?;
        }
    }
    if length > ANSWER_BYTES_MAX {
        bail!("an answer of {length} bytes");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_after_the_other() {
        let mut bytes = &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\n\r\nokHTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n"[..];
        assert_eq!(read_answer(&mut bytes).unwrap(), (200, b"ok".to_vec()));
        assert_eq!(read_answer(&mut bytes).unwrap(), (429, Vec::new()));
        assert!(read_answer(&mut bytes).is_err());
        assert!(read_answer(&mut &b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"[..]).is_err());
        assert!(read_answer(&mut &b"SSH-2.0\r\n"[..]).is_err());
    }
}
