//! Entry points of the fuzz targets and of the tests that replay their inputs: one function per target, which panics on
//! a defect.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio_util::sync::CancellationToken;

use weir::clock::{Clock, SystemClock};
use weir::config::{IngestConfig, MqttConfig};
use weir::core::operator::Operator;
use weir::core::output::{Collector, ErrorEntry, WindowResult};
use weir::core::record::{self, PublishRecord};
use weir::core::settings::Settings;
use weir::disk::Disk;
use weir::disk::sim::SimDisk;
use weir::log::{DirectoryReader, Log, LogOptions, Lsn, Records, Retention, SyncPolicy, verify_dir};
use weir::mqtt::StreamServer;

const DIRECTORY: &str = "/journal";

fn options() -> LogOptions {
    LogOptions {
        name: "journal",
        dir: DIRECTORY.into(),
        segment_bytes: 1 << 16,
        commit_max_bytes: 1 << 20,
        queue_max_bytes: 1 << 20,
        tail_max_bytes: 0,
        sync: SyncPolicy::EveryCommit,
        min_free_bytes: 0,
        retention: Retention::default(),
    }
}

fn open(disk: &SimDisk) -> Option<Log> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Log::open_inline(disk, clock, options(), Lsn(0), Lsn(0)).ok().map(|(log, _)| log)
}

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

/// Checks that results can be shown and stored.
#[derive(Default)]
struct Count {
    json: Vec<u8>,
}

impl Collector for Count {
    fn window(&mut self, seq: u64, window: &WindowResult<'_>) {
        self.json.clear();
        window.write_json(seq, &mut self.json);
        assert!(std::str::from_utf8(&self.json).is_ok(), "windows are UTF-8");
    }

    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        self.json.clear();
        entry.write_json(seq, &mut self.json);
        let text = std::str::from_utf8(&self.json).expect("entries are UTF-8");
        assert!(text.starts_with('{') && text.ends_with('}'), "an entry is an object");
        let mut encoded = Vec::new();
        entry.encode(&mut encoded);
        assert!(ErrorEntry::decode(&encoded).is_ok(), "an entry reads back");
    }
}

/// The input is what a device publishes, twice, once as telemetry and once as errors.
pub fn payload(data: &[u8]) {
    const ARRIVAL_MS: i64 = 1_767_225_600_000;
    let mut operator = Operator::new(Settings::default());
    let mut out = Count::default();
    let mut records = Vec::new();
    for topic in ["devices/d/telemetry", "devices/d/errors", "devices/d/telemetry"] {
        let publish = PublishRecord {
            client_id: "c",
            topic,
            own_device: None,
            user: None,
            packet_id: 1,
            qos: 1,
            dup: false,
            retain: false,
            payload: data,
        };
        let mut bytes = Vec::new();
        record::encode_publish(&publish, false, &mut bytes);
        records.push(bytes);
    }
    for (lsn, arrival_ms) in [(0, ARRIVAL_MS), (3, ARRIVAL_MS + 60_000), (6, ARRIVAL_MS + 600_000)] {
        let applied = operator.apply(lsn, arrival_ms, records.iter().map(Vec::as_slice), &mut out);
        applied.expect("records of this format are applied whatever their payload is");
    }
    assert_eq!(operator.totals().unaccounted(), 0, "every reading has one outcome");
}

/// The first byte says what the rest is: 0 a segment file as it is; 1 one whose checksums are put right, so that what
/// is behind them is read too; else changes to a good file of which only what was not changed may be read.
pub fn log(data: &[u8]) {
    let Some((&shape, bytes)) = data.split_first() else { return };
    match shape % 3 {
        0 => read_all(bytes.to_vec(), None),
        1 => read_all(with_checksums(bytes.to_vec()), None),
        _ => {
            let (mut file, records) = good_segment();
            for change in bytes.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % file.len();
                match change[2] {
                    0 => file.truncate(at.max(1)),
                    flip => file[at] ^= flip,
                }
            }
            read_all(file, Some(&records));
        }
    }
}

fn segment_path() -> std::path::PathBuf {
    Path::new(DIRECTORY).join("00000000000000000000.log")
}

fn good_segment() -> (Vec<u8>, Vec<Vec<u8>>) {
    let disk = SimDisk::new();
    let log = open(&disk).expect("an empty disk holds a log");
    let mut all = Vec::new();
    for batch in 0..5_u8 {
        let mut records = Records::default();
        for length in 0..4_usize {
            let record = vec![batch + 1; length * 40];
            records.push_with(|out| out.extend_from_slice(&record));
            all.push(record);
        }
        log.append(&records, None).expect("there is room");
        while log.step() {}
    }
    let file = disk.open_read(&segment_path()).expect("the segment");
    let mut bytes = vec![0; 1 << 16];
    let count = file.read_at(&mut bytes, 0).expect("it can be read");
    bytes.truncate(count);
    (bytes, all)
}

/// Puts magic, version and checksums right: docs/journal-format.md.
fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    if file.len() < 64 {
        return file;
    }
    file[..10].copy_from_slice(b"WEIRSEG\n\x01\0");
    file[16..24].fill(0);
    file[32..48].fill(0);
    let checksum = crc32c::crc32c(&file[..60]);
    file[60..64].copy_from_slice(&checksum.to_le_bytes());
    let salt: [u8; 8] = file[24..32].try_into().expect("eight bytes");
    let mut at = 64;
    while file.len() >= at + 48 {
        file[at..at + 6].copy_from_slice(b"WBAT\x01\0");
        let left = file.len() - at - 48;
        // Bodies of up to 255 bytes, so that there are several.
        let body = usize::from(file[at + 12]).min(left);
        file[at + 12..at + 16].copy_from_slice(&(body as u32).to_le_bytes());
        let checksum = crc32c::crc32c(&file[at + 48..at + 48 + body]);
        file[at + 40..at + 44].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&salt), &file[at..at + 44]);
        file[at + 44..at + 48].copy_from_slice(&checksum.to_le_bytes());
        at += 48 + body;
    }
    file
}

/// Verifies, reads, opens and appends. `written`: what the records may be.
fn read_all(bytes: Vec<u8>, written: Option<&[Vec<u8>]>) {
    let disk = SimDisk::new();
    let directory = Path::new(DIRECTORY);
    disk.create_dir_all(directory).expect("a directory");
    let file = disk.create(&segment_path()).expect("a file");
    file.write_all_at(&bytes, 0).expect("a write");
    let _ = verify_dir(&disk, directory);
    if let Ok(reader) = DirectoryReader::open(Arc::new(disk.clone()), directory) {
        for batch in reader.take(10_000) {
            let Ok(batch) = batch else { break };
            for (index, record) in batch.records().enumerate() {
                let position = batch.first().0 as usize + index;
                assert!(written.is_none_or(|written| written[position] == record), "record {position} was changed");
            }
        }
    }
    let Some(log) = open(&disk) else { return };
    let end = log.durable();
    let mut records = Records::default();
    records.push_with(|out| out.extend_from_slice(b"new"));
    log.append(&records, None).expect("there is room");
    while log.step() {}
    assert_eq!(log.durable().0, end.0 + 1, "a log that opens goes on");
}
