//! The listener and its connections, over real sockets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::HttpServer;

async fn served(api: &TestApi) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let mut config = Config::default().http;
    config.listen = "127.0.0.1:0".parse().expect("an address");
    let server = HttpServer::bind(&config, api.state.clone()).await.expect("a free port");
    let (address, cancel) = (server.local_addr(), CancellationToken::new());
    assert_ne!(address.port(), 0);
    let run = tokio::spawn(server.run(cancel.clone()));
    (address, cancel, run)
}

async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    stream.write_all(text.as_bytes()).await.expect("a connection");
    stream
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("text");
    text
}

#[tokio::test]
async fn requests_and_garbage() {
    let api = TestApi::new();
    let (address, cancel, run) = served(&api).await;
    let garbage = send(address, "\u{0}\u{1}what\r\n\r\n").await;
    assert!(read_to_end(garbage).await.starts_with("HTTP/1.1 400 "));
    let text =
        read_to_end(send(address, "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("{\"status\":\"ok\"}"), "{text}");
    cancel.cancel();
    run.await.expect("no panic");
    assert!(TcpStream::connect(address).await.is_err(), "it listens no more");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_streams() {
    let api = TestApi::new();
    let (address, cancel, run) = served(&api).await;
    let mut idle = send(address, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut stream = send(address, "GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut head = [0; 12];
    for connection in [&mut idle, &mut stream] {
        connection.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    cancel.cancel();
    run.await.expect("no panic");
    assert!(read_to_end(idle).await.ends_with("{\"status\":\"ok\"}"));
    assert!(read_to_end(stream).await.ends_with("0\r\n\r\n"), "the stream ends as HTTP ends bodies");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let api = TestApi::new();
    let (address, cancel, run) = served(&api).await;
    let mut config = Config::default().http;
    config.listen = address;
    let error = HttpServer::bind(&config, api.state.clone()).await.expect_err("the port is taken").to_string();
    assert!(error.contains(&address.to_string()) && error.contains("another weir"), "{error}");
    cancel.cancel();
    run.await.expect("no panic");
}
