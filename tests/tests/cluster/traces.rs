//! What a collector hears of a node: spans of requests and of the store, over OTLP; and what is said when there is no collector.

use std::time::Duration;

use rookery_tests::harness::{Encoding, NodeSpec, bundled, eventually};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A collector: takes every post, and passes on its path and its body.
async fn collector() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, posts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, heard.clone()));
        }
    });
    (address, posts)
}

async fn serve(socket: TcpStream, heard: mpsc::UnboundedSender<(String, Vec<u8>)>) {
    let mut socket = BufReader::new(socket);
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if path.is_empty() {
                path = line.to_owned();
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        let _ = heard.send((path, body));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if socket.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn has(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_hears_of_requests_and_of_the_store_but_not_of_messages() {
    let (address, mut posts) = collector().await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = NodeSpec::new("traced", dir.path());
    spec.set("telemetry.otlp", format!("http://{address}"));
    let mut node = spec.spawn();
    node.ready().await;
    node.ops().publish(bundled("echo")).await;
    let client = node.guest(Encoding::Json).await;
    let target = client.create("echo").await;
    client.join(&target).await.expect("there is room");
    client.send(&target, 1, serde_json::json!("hello")).await;
    let mut all = Vec::new();
    let wanted = [
        "request",
        "match.create",
        "match.join",
        "store",
        "create_match",
        "rookery",
        "traced",
    ];
    let whole = async {
        while !wanted.iter().all(|text| has(&all, text)) {
            let (path, body) = posts.recv().await.expect("the collector runs");
            assert_eq!(path, "POST /v1/traces HTTP/1.1");
            all.extend(body);
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(30), whole).await;
    assert!(heard.is_ok(), "not all of {wanted:?} was heard");
    assert!(!has(&all, "match.send") && !has(&all, "hello"), "a message was traced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_is_named_and_costs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = NodeSpec::new("untraced", dir.path());
    spec.set("telemetry.otlp", "http://127.0.0.1:9");
    let mut node = spec.spawn();
    node.ready().await;
    node.ops().publish(bundled("echo")).await;
    let client = node.guest(Encoding::Json).await;
    client.create("echo").await;
    eventually("the log names the collector", async || {
        node.log().contains("traces are lost: the collector takes none")
    })
    .await;
    let ops = node.ops();
    let text = ops.metrics().await;
    let failed = text
        .lines()
        .find_map(|line| line.strip_prefix("rookery_trace_exports_failed_total "));
    assert!(
        failed.and_then(|count| count.parse::<f64>().ok()) >= Some(1.0),
        "{failed:?}"
    );
}
