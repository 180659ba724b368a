//! The floor of the bench: what a WebSocket server costs that does nothing else. A bare tokio-tungstenite echo (`/echo`) and room relay
//! (`/room/<name>`: everyone in the room hears everything, its sender too), on one thread, with buffers of 4 KiB, one queue a
//! client and one flush a wake-up. It is part of the bench and no part of the product: no accounts, no protocol, no limit on who may come.
//!
//! Prints `floor ready client=<addr>` and serves until it is killed.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use anyhow::Context as _;
use futures_util::{Sink, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// tungstenite's own default of 128 KiB costs 134 KiB a connection and twice the CPU time a message; nobody would serve crowds so.
const BUFFER_BYTES: usize = 4 * 1024;

/// A client that is this far behind is cut off.
const QUEUE_MAX: usize = 4096;

fn main() -> anyhow::Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async move {
        let listener = TcpListener::bind(&listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        println!("floor ready client={}", listener.local_addr()?);
        let rooms = Rc::new(Rooms::default());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let rooms = Rc::clone(&rooms);
            tokio::task::spawn_local(async move {
                // A client that goes away is no event for a floor.
                let _ = serve(stream, &rooms).await;
            });
        }
    }))
}

/// Who is in which room.
#[derive(Default)]
struct Rooms(RefCell<HashMap<String, Room>>);

/// The clients of one room, in the order in which they came.
type Room = Rc<RefCell<Vec<Rc<Client>>>>;

/// What waits for one client, and the task that will send it.
#[derive(Default)]
struct Client {
    queue: RefCell<VecDeque<Message>>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    fn tell(&self, message: Message) {
        self.queue.borrow_mut().push_back(message);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

async fn serve(stream: TcpStream, rooms: &Rooms) -> anyhow::Result<()> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES);
    let mut path = String::new();
    #[allow(clippy::result_large_err)] // The shape of the library's callback.
    let note_path = |request: &Request, response: Response| {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async_with_config(stream, note_path, Some(config)).await?;
    let client = Rc::new(Client::default());
    let room = path.strip_prefix("/room/").map(|name| {
        let room = Rc::clone(rooms.0.borrow_mut().entry(name.to_owned()).or_default());
        room.borrow_mut().push(Rc::clone(&client));
        room
    });
    let outcome = poll_fn(|cx| relay(&mut socket, &client, room.as_ref(), cx)).await;
    if let (Some(room), Some(name)) = (room, path.strip_prefix("/room/")) {
        room.borrow_mut().retain(|other| !Rc::ptr_eq(other, &client));
        if room.borrow().is_empty() {
            rooms.0.borrow_mut().remove(name);
        }
    }
    outcome.map_err(anyhow::Error::from)
}

/// One wake-up of a client: reads all that has come, feeds all that waits, flushes once. Ready only at the end of the connection.
fn relay(
    mut socket: &mut WebSocketStream<TcpStream>,
    client: &Client,
    room: Option<&Room>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    // While this client is awake nobody needs to wake it, not even itself: what it tells itself is fed below.
    client.waker.take();
    loop {
        match Pin::new(&mut socket).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) if message.is_text() || message.is_binary() => match room {
                Some(room) => room.borrow().iter().for_each(|other| other.tell(message.clone())),
                None => client.queue.borrow_mut().push_back(message),
            },
            // tungstenite queues the answer to a ping or a close by itself.
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Pending => break,
        }
    }
    if client.queue.borrow().len() > QUEUE_MAX {
        return Poll::Ready(Ok(()));
    }
    client.waker.replace(Some(cx.waker().clone()));
    while !client.queue.borrow().is_empty() {
        ready!(Pin::new(&mut socket).poll_ready(cx))?;
        let Some(message) = client.queue.borrow_mut().pop_front() else {
            break;
        };
        Pin::new(&mut socket).start_send(message)?;
    }
    ready!(Pin::new(&mut socket).poll_flush(cx))?;
    Poll::Pending
}
