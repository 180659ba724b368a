//! `rookery call`: opens guest sessions, sends requests as they are written and prints every frame that comes, one JSON text a line. For
//! authors of clients, for scripts, and for looking at a cluster as a player sees it. It speaks JSON and knows no request of the
//! protocol: what it sends is what was typed. The steps are in `call/step.rs`, one socket in `call/session.rs`.

mod session;
mod step;

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::say;
use session::{Heard, Socket};
use step::{Known, Step};

pub(super) use session::BadUrl;
pub(super) use step::BadStep;

/// Frames that wait to be printed; a full queue makes the socket wait, and the server in the end.
const HEARD_MAX: usize = 1_024;
/// Typed lines that wait for their turn.
const LINES_MAX: usize = 16;
/// Frames that a later `wait:` may still find; older ones are forgotten.
const KEPT_MAX: usize = 10_000;

/// Open guest sessions, send requests, and print what comes back, one JSON frame a line.
///
/// Each STEP is a request, sent and its answer awaited, or `wait:TEXT`, which waits for the next frame with this text in it. A request
/// is written as JSON, or as its type and its fields: `channel.send channel=room:lobby text="good day"`. One with `id=null` is sent
/// without an id, and nothing is awaited. With several URLs there are several sessions: `2:STEP` is a step of the second one (without a number it is the first's), and each printed line begins with
/// its session's number. A string or an awaited text `$key` stands for the value that a frame of this session last had under that
/// key, `$2.key` for one of the second session's. Without steps they are read from stdin, one a line.
///
/// Ends with 1 when a request was refused or something waited for did not come; steps behind it are not done.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rookery call world.list\n  \
    rookery call --url :7700 --url :7710 'channel.join channel=room:lobby' '2:channel.join channel=room:lobby' \\\n      \
    '2:channel.send channel=room:lobby text=\"good day\"' 'wait:good day'")]
pub(super) struct Call {
    /// A node's client listener; `:7700` is one on this machine. Each one that is given is a session of its own.
    #[arg(long = "url", value_name = "URL", default_value = "ws://127.0.0.1:7700")]
    urls: Vec<String>,
    /// The name of a session's guest, in the order of the URLs.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// All sessions are one guest's.
    #[arg(long)]
    one_player: bool,
    /// An access token to use instead of a new guest's, in the order of the URLs.
    #[arg(long = "token", value_name = "TOKEN")]
    tokens: Vec<String>,
    /// How long an answer or a `wait:` may take.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Go on printing for this long after the last step.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    listen: Duration,
    /// What to do, in order.
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
}

impl Call {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let steps: Vec<(usize, Step)> = self
            .steps
            .iter()
            .map(|text| step::parse(text, self.urls.len()))
            .collect::<Result<_, _>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut caller = Caller::open(&self).await?;
            if self.steps.is_empty() {
                caller.obey_stdin().await?;
            }
            for (session, step) in steps {
                caller.perform(session, step).await?;
                if caller.refused {
                    break;
                }
            }
            caller.listen(self.listen).await;
            caller.close().await;
            Ok(if caller.refused {
                ExitCode::from(1)
            } else {
                ExitCode::SUCCESS
            })
        })
    }
}

/// All sessions of a run.
struct Caller {
    sessions: Vec<Session>,
    inbox: mpsc::Receiver<(usize, Heard)>,
    within: Duration,
    /// Whether printed lines say whose they are.
    are_numbered: bool,
    refused: bool,
}

struct Session {
    socket: Socket,
    next_id: i64,
    /// What no `wait:` has found yet.
    heard: VecDeque<String>,
    /// The answer that is awaited now.
    answer: Option<Value>,
    known: Known,
    closed: Option<String>,
}

impl Caller {
    async fn open(options: &Call) -> anyhow::Result<Self> {
        let (sender, inbox) = mpsc::channel(HEARD_MAX);
        let mut caller = Self {
            sessions: Vec::new(),
            inbox,
            within: options.within,
            are_numbered: options.urls.len() > 1,
            refused: false,
        };
        let mut shared = None;
        for (index, url) in options.urls.iter().enumerate() {
            let name = options.names.get(index).map_or("caller", String::as_str);
            let same = shared.clone().filter(|_| options.one_player);
            let token = options.tokens.get(index).cloned().or(same);
            let (socket, token) = session::connect(url, name, token, options.within, index, sender.clone()).await?;
            shared = Some(token.clone());
            caller.sessions.push(Session {
                socket,
                next_id: 1,
                heard: VecDeque::new(),
                answer: None,
                known: BTreeMap::new(),
                closed: None,
            });
            let open = json!({ "type": "session.open", "token": token });
            caller.perform(index, Step::Request(open)).await?;
            if caller.refused {
                bail!("{url} opened no session");
            }
        }
        Ok(caller)
    }

    async fn obey_stdin(&mut self) -> anyhow::Result<()> {
        // A thread of its own, since nothing can interrupt the reading of a terminal; it ends with the process.
        let (sender, mut lines) = mpsc::channel(LINES_MAX);
        std::thread::spawn(move || {
            let mut typed = std::io::stdin().lines().map_while(Result::ok);
            typed.try_for_each(|line| sender.blocking_send(line))
        });
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(line) if line.trim().is_empty() => {}
                    Some(line) => match step::parse(&line, self.sessions.len()) {
                        Ok((session, step)) => self.perform(session, step).await?,
                        Err(error) => eprintln!("rookery: {error}"),
                    },
                    None => return Ok(()),
                },
                Some((session, heard)) = self.inbox.recv() => self.take(session, heard),
            }
        }
    }

    async fn perform(&mut self, index: usize, step: Step) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.within;
        match step {
            Step::Request(mut request) => {
                let known: Vec<&Known> = self.sessions.iter().map(|session| &session.known).collect();
                step::fill_in(&mut request, index, &known)?;
                let session = &mut self.sessions[index];
                if request.get("id") == Some(&Value::Null) {
                    // Sent without a number, it has no answer to wait for.
                    if let Some(fields) = request.as_object_mut() {
                        fields.remove("id");
                    }
                    session.socket.send(request.to_string()).await;
                    return Ok(());
                }
                session.next_id += 1;
                let id = request.get("id").and_then(Value::as_i64).unwrap_or(session.next_id);
                request["id"] = id.into();
                session.answer = None;
                session.socket.send(request.to_string()).await;
                loop {
                    let session = &mut self.sessions[index];
                    match session.answer.take_if(|answer| answer["id"] == id) {
                        Some(answer) => {
                            self.refused |= answer["type"] == "error";
                            return Ok(());
                        }
                        None => self.hear(index, deadline, || format!("an answer to {request}")).await?,
                    }
                }
            }
            Step::Wait(text) => {
                let mut wanted = Value::String(text);
                let known: Vec<&Known> = self.sessions.iter().map(|session| &session.known).collect();
                step::fill_in(&mut wanted, index, &known)?;
                let text = wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned);
                self.wait(index, &text, deadline).await
            }
        }
    }

    async fn wait(&mut self, index: usize, text: &str, deadline: Instant) -> anyhow::Result<()> {
        loop {
            let session = &mut self.sessions[index];
            let found = session.heard.iter().position(|frame| frame.contains(text));
            if let Some(at) = found {
                session.heard.drain(..=at);
                return Ok(());
            }
            self.hear(index, deadline, || format!("a frame with `{text}`")).await?;
        }
    }

    /// Takes the next frame, whosever it is; an error when there will be none in time.
    async fn hear(&mut self, index: usize, deadline: Instant, what: impl Fn() -> String) -> anyhow::Result<()> {
        if let Some(why) = &self.sessions[index].closed {
            bail!(
                "session {}: the connection was closed ({why}) before {} came",
                index + 1,
                what()
            );
        }
        match tokio::time::timeout_at(deadline, self.inbox.recv()).await {
            Ok(Some((session, heard))) => {
                self.take(session, heard);
                Ok(())
            }
            Ok(None) => bail!("all connections are closed"),
            Err(_) => bail!(
                "session {}: within {:?} there was not {}",
                index + 1,
                self.within,
                what()
            ),
        }
    }

    /// Prints and keeps what came.
    fn take(&mut self, index: usize, heard: Heard) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        match heard {
            Heard::Frame(text) => {
                if self.are_numbered {
                    say(format_args!("{} {text}", index + 1));
                } else {
                    say(&text);
                }
                let frame: Value = serde_json::from_str(&text).unwrap_or_default();
                for (key, value) in frame.as_object().into_iter().flatten() {
                    session.known.insert(key.clone(), value.clone());
                }
                if frame.get("id").is_some_and(|id| !id.is_null()) {
                    session.answer = Some(frame);
                }
                session.heard.push_back(text);
                if session.heard.len() > KEPT_MAX {
                    session.heard.pop_front();
                }
            }
            Heard::Closed(why) => {
                eprintln!("rookery: session {}: closed ({why})", index + 1);
                session.closed = Some(why);
            }
        }
    }

    async fn listen(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while let Ok(Some((session, heard))) = tokio::time::timeout_at(until, self.inbox.recv()).await {
            self.take(session, heard);
        }
    }

    /// Gives seats up at once, so that nothing waits for the grace of somebody who will not return.
    async fn close(&mut self) {
        for session in self.sessions.iter_mut().filter(|session| session.closed.is_none()) {
            session
                .socket
                .send(json!({ "type": "session.close" }).to_string())
                .await;
        }
        let sessions = std::mem::take(&mut self.sessions);
        for session in sessions {
            session.socket.finish().await;
        }
    }
}
