//! The generator against a small server that does what it is told: behave, or lose, double, swap, misdeliver or refuse. What is proved is
//! that the generator's verdict is right; the server's conduct is nobody's promise.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::*;

/// What the server does wrong, once, with the 50th message that it hears.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Conduct {
    Good,
    Loses,
    Doubles,
    Swaps,
    /// Gives the message to somebody else, too.
    Misdelivers,
    RepeatsSeq,
    ClosesOne,
    /// Answers every second request of the set-up by `rate_limited`.
    Limits,
    NeverAcknowledges,
    /// Knows no module.
    Refuses,
}

/// A server in a thread of its own; it ends with the test.
struct Server {
    addr: SocketAddr,
    _stop: oneshot::Sender<()>,
}

fn serve(conduct: Conduct) -> Server {
    let (told_addr, addr) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let serving = async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            told_addr.send(listener.local_addr().unwrap()).unwrap();
            let hall = Rc::new(Hall::new(conduct));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let hall = Rc::clone(&hall);
                tokio::task::spawn_local(async move {
                    let mut first = [0];
                    stream.peek(&mut first).await.unwrap();
                    if first == *b"P" {
                        accounts(stream).await
                    } else {
                        hall.session(stream).await
                    }
                });
            }
        };
        let local = tokio::task::LocalSet::new();
        runtime.block_on(local.run_until(async {
            tokio::select! {
                () = serving => {}
                _ = stopped => {}
            }
        }));
    });
    Server {
        addr: addr.recv().unwrap(),
        _stop: stop,
    }
}

/// Answers each request with an account, until the connection ends.
async fn accounts(mut stream: TcpStream) {
    let mut heard = Vec::new();
    while stream.read_buf(&mut heard).await.unwrap_or(0) > 0 {
        // The body ends the request: a JSON object on one line.
        while let Some(end) = heard.iter().position(|byte| *byte == b'}') {
            heard.drain(..=end);
            let body = r#"{"player":"p","access_token":"t","refresh_token":"r","expires_in":60}"#;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

type Outbox = mpsc::UnboundedSender<Message>;

struct Room {
    members: Vec<Outbox>,
    seq: u64,
    held: Option<(Outbox, Value)>,
}

struct Hall {
    conduct: Conduct,
    rooms: RefCell<HashMap<String, Room>>,
    made: Cell<u64>,
    heard: Cell<u64>,
    asked: Cell<u64>,
}

impl Hall {
    fn new(conduct: Conduct) -> Self {
        let (made, heard, asked) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self {
            conduct,
            rooms: RefCell::default(),
            made,
            heard,
            asked,
        }
    }

    #[expect(clippy::result_large_err, reason = "the handshake's callback has this form")]
    async fn session(&self, stream: TcpStream) {
        let negotiate = |request: &Request, mut response: Response| {
            assert_eq!(request.uri().path(), "/v1/ws");
            let name = request.headers()["sec-websocket-protocol"].clone();
            assert_eq!(name, "rookery.v1.json");
            response.headers_mut().insert("sec-websocket-protocol", name);
            Ok(response)
        };
        let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, negotiate).await else {
            return;
        };
        let (mut sink, mut stream) = socket.split();
        let (outbox, mut queue) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            while let Some(message) = queue.recv().await {
                if sink.send(message).await.is_err() {
                    break;
                }
            }
        });
        while let Some(Ok(Message::Text(text))) = stream.next().await {
            let request: Value = serde_json::from_str(&text).unwrap();
            if let Some(answer) = self.answer(&outbox, &request) {
                let _ = outbox.send(Message::text(answer.to_string()));
            }
        }
    }

    fn answer(&self, outbox: &Outbox, request: &Value) -> Option<Value> {
        let id = &request["id"];
        let target = request["match"].as_str().unwrap_or_default();
        if id.is_number() {
            self.asked.set(self.asked.get() + 1);
            if self.conduct == Conduct::Limits && self.asked.get().is_multiple_of(2) {
                let details = json!({"retry_ms": 5});
                return Some(json!({"type":"error","id":id,"code":"rate_limited","message":"slow","details":details}));
            }
        }
        match request["type"].as_str().unwrap() {
            "session.open" => {
                assert_eq!(request["token"], "t");
                Some(json!({"type":"session.opened","id":id,"matches":[],"nodes":["http://x"]}))
            }
            "match.create" if self.conduct == Conduct::Refuses => {
                Some(json!({"type":"error","id":id,"code":"module.not_found","message":"no such module","details":{}}))
            }
            "match.create" => {
                let name = format!("match-{}", self.made.replace(self.made.get() + 1));
                self.rooms.borrow_mut().insert(
                    name.clone(),
                    Room {
                        members: Vec::new(),
                        seq: 0,
                        held: None,
                    },
                );
                Some(json!({"type":"match.created","id":id,"match":name}))
            }
            "match.join" => {
                let mut rooms = self.rooms.borrow_mut();
                let room = rooms.get_mut(target).unwrap();
                room.seq += 1;
                let players =
                    json!({"type":"match.players","match":target,"seq":room.seq,"joined":[{"seat":1}],"left":[]});
                room.members
                    .iter()
                    .for_each(|other| drop(other.send(Message::text(players.to_string()))));
                room.members.push(outbox.clone());
                Some(json!({"type":"match.joined","id":id,"match":target,"seat":1,"seq":room.seq,"n":0,"players":[]}))
            }
            "match.leave" => {
                self.rooms.borrow_mut().remove(target);
                Some(json!({"type":"match.left","id":id,"match":target}))
            }
            "match.send" => {
                let answers = self.relay(outbox, request);
                if self.conduct == Conduct::ClosesOne && self.heard.get() == 50 {
                    let _ = outbox.send(Message::Close(None));
                }
                answers
            }
            other => panic!("the generator asked {other}"),
        }
    }

    fn relay(&self, outbox: &Outbox, request: &Value) -> Option<Value> {
        let target = request["match"].as_str().unwrap();
        self.heard.set(self.heard.get() + 1);
        let wrong = if self.heard.get() == 50 {
            self.conduct
        } else {
            Conduct::Good
        };
        let mut rooms = self.rooms.borrow_mut();
        let room = rooms.get_mut(target).unwrap();
        if wrong != Conduct::RepeatsSeq {
            room.seq += 1;
        }
        let data = json!({"type":"match.data","match":target,"seq":room.seq,"at":0,"data":request["data"]});
        let to_all = request["data"].as_str().unwrap().starts_with("all:");
        let mut receivers = if to_all {
            room.members.clone()
        } else {
            vec![outbox.clone()]
        };
        if wrong == Conduct::Misdelivers {
            receivers.extend(room.members.iter().find(|other| !other.same_channel(outbox)).cloned());
        }
        // The first receiver bears what goes wrong.
        if wrong == Conduct::Loses {
            receivers.remove(0);
        } else if wrong == Conduct::Doubles {
            receivers.push(receivers[0].clone());
        } else if wrong == Conduct::Swaps {
            room.held = Some((receivers.remove(0), data.clone()));
        }
        let send = |to: &Outbox, data: &Value| drop(to.send(Message::text(data.to_string())));
        receivers.iter().for_each(|to| send(to, &data));
        let due = room.held.as_ref().is_some_and(|(to, held)| {
            let same_sender = held["data"].as_str().unwrap()[..12] == request["data"].as_str().unwrap()[..12];
            *held != data && same_sender && receivers.iter().any(|receiver| receiver.same_channel(to))
        });
        if let Some((to, held)) = room.held.take_if(|_| due) {
            send(&to, &held);
        }
        let acknowledge = request["n"].is_number() && self.conduct != Conduct::NeverAcknowledges;
        acknowledge.then(|| json!({"type":"match.ack","match":target,"n":request["n"],"seq":room.seq}))
    }
}

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

fn load(conduct: Conduct, args: &str) -> anyhow::Result<Report> {
    let server = serve(conduct);
    let url = format!("http://{}", server.addr);
    let pid = std::process::id().to_string();
    let args = ["load"]
        .into_iter()
        .chain(args.split_whitespace())
        .chain(["--url", &url, "--server-pid", &pid]);
    match Cli::try_parse_from(args)?.scenario {
        Scenario::Echo(echo) => echo.run(),
        Scenario::Fanout(fanout) => fanout.run(),
        Scenario::Idle(idle) => idle.run(),
        Scenario::Create(create) => create.run(),
    }
}

const ECHO: &str = "echo --connections 7 --room-size 3 --seconds 0.3 --warmup 0.1 --window 2";
/// Nobody alone in a room: somebody else is there to be given what is not theirs.
const ECHO_IN_COMPANY: &str = "echo --connections 6 --room-size 3 --seconds 0.3 --warmup 0.1 --window 2";
const FANOUT: &str = "fanout --connections 8 --room-size 3 --rate 100 --seconds 0.4 --warmup 0.1";

#[test]
fn a_good_server_gets_a_good_report() {
    for args in [
        ECHO,
        FANOUT,
        &format!("{ECHO} --numbered"),
        &format!("{FANOUT} --numbered --payload 300"),
    ] {
        let report = load(Conduct::Good, args).unwrap();
        assert_eq!(report.complaints(), [""; 0], "{args}: {report}");
        assert!(report.get("sent_per_s").unwrap() > 100.0, "{report}");
        assert!(
            report.get("p50_ms").unwrap() <= report.get("p999_ms").unwrap(),
            "{report}"
        );
        let (sent, delivered) = (report.get("sent").unwrap(), report.get("delivered").unwrap());
        // Rooms of 3, 3 and 2: every message has two or three receivers.
        let copies = if args.starts_with("echo") { 1.0..=1.0 } else { 2.0..=3.0 };
        assert!(copies.contains(&(delivered / sent)), "{args}: {report}");
        serde_json::from_str::<Value>(&report.to_json()).unwrap();
    }
}

#[test]
fn a_paced_run_sends_at_its_rate() {
    let report = load(Conduct::Good, FANOUT).unwrap();
    let rate = report.get("sent_per_s").unwrap();
    assert!((700.0..=900.0).contains(&rate), "8 players at 100 a second: {report}");
}

#[test]
fn every_fault_is_found_and_named() {
    for (conduct, scenario, figure) in [
        (Conduct::Loses, FANOUT, "lost"),
        (Conduct::Doubles, FANOUT, "doubled"),
        (Conduct::Swaps, FANOUT, "out_of_order"),
        (Conduct::RepeatsSeq, FANOUT, "seq_not_rising"),
        (Conduct::ClosesOne, FANOUT, "connections_failed"),
        (Conduct::Doubles, ECHO, "doubled"),
        (Conduct::Misdelivers, ECHO_IN_COMPANY, "stray"),
    ] {
        let report = load(conduct, scenario).unwrap();
        assert!(report.get(figure).unwrap() >= 1.0, "{conduct:?}: {report}");
        assert_ne!(report.complaints(), [""; 0]);
        let clean = [
            "lost",
            "doubled",
            "out_of_order",
            "stray",
            "seq_not_rising",
            "connections_failed",
        ];
        let others: Vec<_> = clean
            .into_iter()
            .filter(|name| *name != figure && report.get(name).unwrap() > 0.0)
            .collect();
        // A copy and a late message carry an old `seq`, and what comes by a closed connection is lost; nothing else may be
        // blamed for another's fault.
        let implied = match conduct {
            Conduct::Doubles | Conduct::Swaps => "seq_not_rising",
            Conduct::ClosesOne => "lost",
            _ => "",
        };
        assert!(others.iter().all(|name| *name == implied), "{conduct:?}: {report}");
    }
    let report = load(Conduct::NeverAcknowledges, &format!("{FANOUT} --numbered")).unwrap();
    assert_eq!(report.get("unacknowledged"), report.get("sent"), "{report}");
}

#[test]
fn a_rate_limit_during_set_up_is_waited_out_and_a_refusal_is_an_error() {
    let report = load(Conduct::Limits, FANOUT).unwrap();
    assert_eq!(report.complaints(), [""; 0], "{report}");
    let error = format!("{:#}", load(Conduct::Refuses, FANOUT).unwrap_err());
    assert!(
        error.contains("module.not_found") && error.contains("module echo"),
        "{error}"
    );
}

#[test]
fn creating_counts_matches_and_ends_with_every_answer() {
    let report = load(Conduct::Good, "create --workers 5 --seconds 0.3 --warmup 0.1").unwrap();
    assert_eq!(report.complaints(), [""; 0], "{report}");
    assert!(report.get("created_and_joined_per_s").unwrap() > 50.0, "{report}");
    assert!(report.get("server_cpu_ms_each").unwrap() > 0.0, "{report}");
}

#[test]
fn idle_measures_sessions_and_matches() {
    let report = load(Conduct::Good, "idle --connections 20 --seconds 0.2 --warmup 0.1").unwrap();
    assert_eq!(
        (report.complaints(), report.get("connections")),
        (&[][..], Some(20.0)),
        "{report}"
    );
    let report = load(Conduct::Good, "idle --matches 310 --seconds 0.2 --warmup 0.1").unwrap();
    assert_eq!(report.complaints(), [""; 0], "{report}");
    // Without --ops the ticks are those that 20 Hz would give.
    assert!(
        (6_000.0..6_400.0).contains(&report.get("ticks_per_s").unwrap()),
        "{report}"
    );
}

#[test]
fn wrong_options_are_refused_with_a_reason() {
    for (args, part) in [
        ("echo --payload 10", "payload"),
        ("echo --payload 100000", "payload"),
        ("echo --connections 0", "connections"),
        ("echo --seconds 0", "seconds"),
        ("create --floor", "--floor"),
        ("echo --encoding xml", "xml"),
    ] {
        let error = format!("{:#}", load(Conduct::Good, args).unwrap_err());
        assert!(error.contains(part), "{args}: {error}");
    }
    assert!(Target::parse("https://x").unwrap_err().to_string().contains("TLS"));
    assert_eq!(Target::parse("http://127.0.0.1:7700/").unwrap().host, "127.0.0.1:7700");
}
