//! `weir journal dump`: the records of a journal as JSON lines.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use serde::Serialize;
use serde_json::Value;

use weir::core::record::{PublishRecord, Record, RecordDecoder, ReplayRecord};
use weir::disk::RealDisk;
use weir::log::verify::DirectoryReader;

use super::verify::journal_directory;

/// One line of the output.
#[derive(Serialize)]
struct RecordLine<'a> {
    lsn: u64,
    /// Position of the first record of the batch.
    batch: u64,
    /// Unix milliseconds.
    arrival_time: i64,
    /// Whether the clock was found to have been set back when the batch was written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    clock_set_back: bool,
    #[serde(flatten)]
    content: RecordContent<'a>,
}

/// The fields of a line that depend on the kind of the record.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum RecordContent<'a> {
    Tick,
    Resumed,
    Settings { settings: Value },
    Forget { devices: Vec<&'a str> },
    Publish(PublishContent<'a>),
    Replay(ReplayContent<'a>),
}

#[derive(Serialize)]
struct PublishContent<'a> {
    client_id: &'a str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    qos: u8,
    packet_id: u16,
    dup: bool,
    retain: bool,
    /// Whether the message repeats what was retained on its topic. Left out where it does not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeats_retained: bool,
    #[serde(flatten)]
    payload: PayloadContent<'a>,
}

#[derive(Serialize)]
struct ReplayContent<'a> {
    journal_position: u64,
    errors: Vec<ReplayedErrorLine>,
    first_arrival_time: i64,
    client_id: &'a str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(flatten)]
    payload: PayloadContent<'a>,
}

#[derive(Serialize)]
struct ReplayedErrorLine {
    /// Sequence number of the replayed error.
    replay_of: u64,
    /// Index of the rejected reading in its message; `None` when the whole message was rejected.
    index: Option<u32>,
    /// Number of readings from this index on, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    readings: Option<u32>,
}

#[derive(Serialize)]
enum PayloadContent<'a> {
    #[serde(rename = "payload")]
    Text(&'a str),
    /// A payload that is not UTF-8.
    #[serde(rename = "payload_base64")]
    Base64(String),
}

/// Records that a repair cut out of the journal.
#[derive(Serialize)]
struct LostLine {
    lsn: u64,
    kind: &'static str,
    count: u64,
}

/// Prints the records from position `from` on, at most `limit`.
///
/// # Errors
/// The journal cannot be read, a record cannot be decoded, or `out` fails.
pub fn dump(directory: &Path, from: u64, limit: Option<u64>, out: &mut impl Write) -> anyhow::Result<()> {
    let directory = journal_directory(directory);
    let reader = DirectoryReader::open(Arc::new(RealDisk), &directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut left = limit.unwrap_or(u64::MAX);
    for batch in reader {
        let batch = batch?;
        let first = batch.first().0;
        if batch.end().0 <= from {
            continue;
        }
        if batch.is_hole() {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            write_line(&LostLine { lsn: first, kind: "lost", count: u64::from(batch.count()) }, out)?;
        }
        let mut decoder = RecordDecoder::default();
        for (lsn, bytes) in (first..).zip(batch.records()) {
            // Records before `from` are decoded too: later ones of the batch may share their client and topic.
            let record = decoder.decode(bytes)?;
            if lsn < from {
                continue;
            }
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            let content = RecordContent::of(&record);
            let line = RecordLine {
                lsn,
                batch: first,
                arrival_time: batch.arrival_ms(),
                clock_set_back: batch.sets_clock_back(),
                content,
            };
            write_line(&line, out)?;
        }
    }
    Ok(())
}

fn write_line(line: &impl Serialize, out: &mut impl Write) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    Ok(writeln!(out)?)
}

impl<'a> RecordContent<'a> {
    fn of(record: &Record<'a>) -> Self {
        match record {
            Record::Tick => Self::Tick,
            Record::Resumed => Self::Resumed,
            Record::Settings(json) => Self::Settings { settings: serde_json::from_slice(json).unwrap_or_default() },
            Record::Forget(ids) => Self::Forget { devices: ids.iter().collect() },
            Record::Publish(publish, _) => Self::Publish(PublishContent::of(publish)),
            Record::Replay(replay) => Self::Replay(ReplayContent::of(replay)),
        }
    }
}

impl<'a> PublishContent<'a> {
    fn of(publish: &PublishRecord<'a>) -> Self {
        let PublishRecord {
            client_id,
            topic,
            own_device,
            user,
            packet_id,
            qos,
            dup,
            retain,
            repeats_retained,
            payload,
        } = *publish;
        Self {
            client_id,
            topic,
            own_device,
            user,
            qos,
            packet_id,
            dup,
            retain,
            repeats_retained,
            payload: PayloadContent::of(payload),
        }
    }
}

impl<'a> ReplayContent<'a> {
    fn of(replay: &ReplayRecord<'a>) -> Self {
        let items = replay.items.iter();
        Self {
            journal_position: replay.position,
            errors: items
                .map(|item| ReplayedErrorLine {
                    replay_of: item.error_seq,
                    index: (!replay.whole).then_some(item.index),
                    readings: (item.readings > 1).then_some(item.readings),
                })
                .collect(),
            first_arrival_time: replay.arrival_ms,
            client_id: replay.client_id,
            topic: replay.topic,
            own_device: replay.own_device,
            user: replay.user,
            payload: PayloadContent::of(replay.payload),
        }
    }
}

impl<'a> PayloadContent<'a> {
    fn of(payload: &'a [u8]) -> Self {
        match std::str::from_utf8(payload) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Base64(base64::engine::general_purpose::STANDARD.encode(payload)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_one_flat_object() {
        let line = |payload, own_device| {
            let publish = PublishRecord {
                client_id: "c",
                topic: "t",
                own_device,
                user: own_device,
                packet_id: 7,
                qos: 1,
                dup: false,
                retain: true,
                repeats_retained: false,
                payload,
            };
            let content = RecordContent::of(&Record::Publish(publish, false));
            let mut out = Vec::new();
            write_line(&RecordLine { lsn: 5, batch: 4, arrival_time: -1, clock_set_back: false, content }, &mut out)
                .expect("a line");
            String::from_utf8(out).expect("UTF-8")
        };
        assert_eq!(
            line(b"{}", None),
            "{\"lsn\":5,\"batch\":4,\"arrival_time\":-1,\"kind\":\"publish\",\"client_id\":\"c\",\"topic\":\"t\",\"qos\":1,\
             \"packet_id\":7,\"dup\":false,\"retain\":true,\"payload\":\"{}\"}\n"
        );
        let binary = line(&[0xff], Some("d"));
        assert!(
            binary.contains("\"own_device\":\"d\",\"user\":\"d\"") && binary.contains("\"payload_base64\":\"/w==\""),
            "{binary}"
        );
    }
}
