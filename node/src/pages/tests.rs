use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// One request over a real socket, as a browser makes it: status, headers in lower case, body.
async fn fetch(request: &str) -> (u16, Vec<(String, String)>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, routes()).await });
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket
        .write_all(format!("{request}\r\nhost: demo\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    server.abort();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    (status, headers, body.to_owned())
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers
        .iter()
        .find(|(key, _)| key == name)
        .map_or("", |(_, value)| value)
}

#[tokio::test]
async fn the_page_is_served_whole_and_locked_down() {
    let (status, headers, body) = fetch("GET / HTTP/1.1").await;
    assert_eq!(status, 200);
    assert_eq!(header(&headers, "content-type"), "text/html; charset=utf-8");
    assert_eq!(header(&headers, "cache-control"), "no-cache");
    assert_eq!(header(&headers, "x-content-type-options"), "nosniff");
    assert!(header(&headers, "content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
    assert_eq!(body, include_str!("../../assets/index.html"));
}

#[tokio::test]
async fn a_browser_that_has_the_file_is_not_sent_it_again() {
    let (_, headers, _) = fetch("GET /app.js HTTP/1.1").await;
    let tag = header(&headers, "etag").to_owned();
    for known in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        "*".to_owned(),
    ] {
        let (status, headers, body) = fetch(&format!("GET /app.js HTTP/1.1\r\nif-none-match: {known}")).await;
        assert_eq!((status, body.as_str()), (304, ""), "{known}");
        assert_eq!(header(&headers, "etag"), tag);
    }
    let (status, _, _) = fetch("GET /app.js HTTP/1.1\r\nif-none-match: \"other\"").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn only_listed_files_exist_and_only_for_reading() {
    for (request, expected) in [
        ("GET /app/../Cargo.toml HTTP/1.1", 404),
        ("GET /nothing HTTP/1.1", 404),
        ("POST / HTTP/1.1", 405),
        ("HEAD /style.css HTTP/1.1", 200),
    ] {
        assert_eq!(fetch(request).await.0, expected, "{request}");
    }
}

/// A file that a script imports or the page links to and that nobody serves would break the page in the browser only.
#[test]
fn every_file_that_a_page_asks_for_is_served() {
    check_served(FILES, |path| if path.starts_with("/app/") { "/app/" } else { "/" });
    check_served(PLAYGROUND, |_| "/dev/");
}

/// `base_of`: where the relative imports of the file at this path begin.
fn check_served(files: &[File], base_of: fn(&str) -> &str) {
    let served: BTreeSet<&str> = files.iter().map(|file| file.path).collect();
    let mut asked = BTreeSet::new();
    for file in files {
        for part in file.text.split(['"', '\'']) {
            let base = base_of(file.path);
            if let Some(relative) = part.strip_prefix("./") {
                asked.insert(format!("{base}{relative}"));
            } else if part.starts_with('/') && [".js", ".css", ".svg"].iter().any(|kind| part.ends_with(kind)) {
                asked.insert(part.to_owned());
            }
        }
    }
    let pages = files.iter().filter(|file| file.kind.starts_with("text/html")).count();
    assert!(
        asked.len() >= files.len() - pages,
        "the page asks for its files in a way that this test does not see: {asked:?}"
    );
    for path in asked {
        assert!(served.contains(path.as_str()), "{path} is asked for and not served");
    }
}
