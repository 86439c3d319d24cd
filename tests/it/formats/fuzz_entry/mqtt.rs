//! Bytes of hostile clients for the MQTT server.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio_util::sync::CancellationToken;

use weir::clock::SystemClock;
use weir::config::{IngestConfig, MqttConfig};
use weir::disk::sim::SimDisk;
use weir::log::Log;
use weir::mqtt::StreamServer;

use super::log::open;

fn connect(level: u8, client_id: &[u8]) -> Vec<u8> {
    let properties = usize::from(level == 5);
    let mut bytes = vec![0x10, (12 + properties + client_id.len()) as u8];
    bytes.extend_from_slice(&[0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 60]);
    bytes.extend(std::iter::repeat_n(0, properties));
    bytes.extend_from_slice(&[0, client_id.len() as u8]);
    bytes.extend_from_slice(client_id);
    bytes
}

/// The first byte says how the rest is sent: bit 0 the version; bit 1 behind a CONNECT or as it is; bit 2 half of it on
/// a second connection while the first is open; bit 3 in small pieces. Whatever it is, a good client must be served.
pub fn mqtt(data: &[u8]) {
    let Some((&shape, bytes)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let log = open(&SimDisk::new()).expect("an empty disk holds a log");
    let config = MqttConfig { max_packet_size_bytes: 4_096, max_inflight: 10, ..MqttConfig::default() };
    let opening = StreamServer::new(&config, &IngestConfig::default(), log.clone(), Arc::new(SystemClock));
    let level = if shape & 1 == 0 { 4 } else { 5 };
    let prefix = if shape & 2 == 0 { connect(level, b"hostile") } else { Vec::new() };
    let (first, second) = if shape & 4 == 0 { (bytes, &[][..]) } else { bytes.split_at(bytes.len() / 2) };
    let piece = if shape & 8 == 0 { usize::MAX } else { 3 };
    runtime.block_on(async {
        let (mut one, one_served) = client(&opening);
        let (mut two, two_served) = client(&opening);
        let (mut good, good_served) = client(&opening);
        let clients = async {
            send(&mut one, &[&prefix, first].concat(), piece, &log).await;
            if !second.is_empty() {
                send(&mut two, &[&prefix, second].concat(), piece, &log).await;
            }
            drop((one, two));
            is_served(&mut good, &log).await;
            drop(good);
        };
        tokio::join!(clients, one_served, two_served, good_served);
    });
}

/// A connection, and the future that serves it.
fn client(opening: &StreamServer) -> (DuplexStream, impl Future<Output = ()>) {
    let (client, server) = tokio::io::duplex(1 << 16);
    let opening = opening.clone();
    (client, async move { opening.serve(server, CancellationToken::new()).await })
}

/// Lets the other tasks and the writer of the journal work.
async fn turn(log: &Log) {
    for _ in 0..4 {
        tokio::task::yield_now().await;
        while log.step() {}
    }
}

/// Sends bytes until weir closes the connection, and reads the answers that have arrived.
async fn send(client: &mut DuplexStream, bytes: &[u8], piece: usize, log: &Log) {
    for part in bytes.chunks(piece.min(bytes.len().max(1))) {
        if client.write_all(part).await.is_err() {
            return;
        }
        turn(log).await;
        let mut answer = [0; 4_096];
        // Reads without waiting.
        poll_fn(|context| {
            let _ = Pin::new(&mut *client).poll_read(context, &mut ReadBuf::new(&mut answer));
            Poll::Ready(())
        })
        .await;
    }
}

async fn is_served(client: &mut DuplexStream, log: &Log) {
    let mut bytes = connect(4, b"good");
    bytes.extend_from_slice(b"\x32\x17\0\x13devices/d/telemetry\0\x07");
    client.write_all(&bytes).await.expect("the good client can send");
    let mut answer = Vec::new();
    for _ in 0..10_000 {
        turn(log).await;
        let mut part = [0; 64];
        if let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(1), client.read(&mut part)).await {
            answer.extend_from_slice(&part[..count]);
        }
        if answer.ends_with(&[0x40, 2, 0, 7]) {
            return;
        }
    }
    panic!("the good client is not served: {answer:x?}");
}
