use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

const ARRIVAL_MS: i64 = 1_732_098_770_000;

fn topic<'a>(message_type: &'a str, node: &'a str, device: Option<&'a str>) -> SparkplugTopic<'a> {
    SparkplugTopic { group: "Plant1", message_type, node, device }
}

/// The topic of a text such as `NDATA Edge1` and `DDATA Edge1/Pump7`.
fn topic_of(text: &str) -> SparkplugTopic<'_> {
    let (message_type, place) = text.split_once(' ').unwrap();
    match place.split_once('/') {
        Some((node, device)) => topic(message_type, node, Some(device)),
        None => topic(message_type, place, None),
    }
}

/// Applies a message; what it gives, as lines of text.
fn apply(memory: &mut MapMemory, to: &str, payload: &[u8], arrival_ms: i64) -> Vec<String> {
    let message = decode(topic_of(to), payload, arrival_ms, memory).unwrap();
    let mut lines: Vec<_> = message.samples.iter().map(shown).collect();
    lines.extend(message.online.map(|online| format!("online {online}")));
    lines.extend(message.rebirth.then(|| "rebirth".to_owned()));
    lines
}

fn shown(sample: &Sample<'_>) -> String {
    let time = match sample.time {
        SampleTime::At(time_ms) => time_ms.to_string(),
        other => format!("{other:?}"),
    };
    let mut line = format!("{} {:?} {time}", sample.key, sample.value);
    line.extend(sample.seq.map(|seq| format!(" #{seq}")));
    line.extend(sample.unit.as_ref().map(|unit| format!(" {unit}")));
    line.extend(sample.is_historical.then_some(" historical"));
    line.extend((!sample.is_good).then_some(" bad"));
    line
}

fn check(memory: &mut MapMemory, to: &str, payload: &[u8], expected: &[&str]) {
    assert_eq!(apply(memory, to, payload, ARRIVAL_MS), expected, "{to}");
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn int(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn double(value: f64) -> Vec<u8> {
    [varint(13 << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

/// A payload with a time, a number, and metrics.
fn payload(seq: u64, metrics: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let metrics = metrics.iter().flat_map(|fields| bytes(2, &fields.concat()));
    int(1, 1_000).into_iter().chain(metrics).chain(int(3, seq)).collect()
}

/// A session as in the specification: births, data by alias, a backlog, a wrap of the number, a node that is not known.
#[test]
fn a_session() {
    let mut memory = MapMemory::default();
    let mut step = |to: &str, text: &str, expected: &[&str]| {
        check(&mut memory, to, &STANDARD.decode(text).unwrap(), expected);
    };
    step(
        "NBIRTH Edge1",
        "CMjhhsm0MhISCgViZFNlcRjI4YbJtDIgCFgDEiEKFE5vZGUgQ29udHJvbC9SZWJpcnRoGMjhhsm0MiALcAASIAoOU3VwcGx5IFZvbHRhZ2UQARjI4YbJtDIgCWXNzMBBEh8KDVByb3BlcnRpZXMvT1MYyOGGybQyIAx6BUxpbnV4EhUKBlVwdGltZRACGMjhhsm0MiAIWGQYAA==",
        &[
            "bdSeq Number(3.0) 1732098765000 #0",
            "Node Control/Rebirth Bool(false) 1732098765000 #0",
            "Supply Voltage Number(24.100000381469727) 1732098765000 #0",
            "Properties/OS Text(\"Linux\") 1732098765000 #0",
            "Uptime Number(100.0) 1732098765000 #0",
            "online true",
        ],
    );
    step(
        "DBIRTH Edge1/Pump7",
        "CNLhhsm0MhIoChJJbnB1dHMvVGVtcGVyYXR1cmUQChjN4YbJtDIgCmkAAAAAAIA1QBIfCgxJbnB1dHMvQ291bnQQCxjN4YbJtDIgA1D5////DxIWCgdSdW5uaW5nEAwYzeGGybQyIAtwARITCgRGbG93EA0YzeGGybQyIAk4ARIgCgxMYXN0IFNlcnZpY2UQDhjN4YbJtDIgDVjI4YbJtDIYAQ==",
        &[
            "Inputs/Temperature Number(21.5) 1732098765005 #1",
            "Inputs/Count Number(-7.0) 1732098765005 #1",
            "Running Bool(true) 1732098765005 #1",
            "Flow Absent 1732098765005 #1",
            "Last Service Other 1732098765005 #1",
            "online true",
        ],
    );
    step(
        "DDATA Edge1/Pump7",
        "CLDphsm0MhISEAoYpumGybQyaQAAAAAAwDVAEg4QDRin6YbJtDJlAABgQBgC",
        &["Inputs/Temperature Number(21.75) 1732098765990 #2", "Flow Number(3.5) 1732098765991 #2"],
    );
    step("NDATA Edge1", "CJjxhsm0MhIHEAFlMzO/QRgD", &["Supply Voltage Number(23.899999618530273) 1732098767000 #3"]);
    step(
        "DDATA Edge1/Pump7",
        "CMi+4sq0MhIUEAoYqLaKybQyKAFpAAAAAAAANEASFBAKGIiLjsm0MigBaQAAAAAAgDRAGP8B",
        &[
            "Inputs/Temperature Number(20.0) 1732098825000 #255 historical",
            "Inputs/Temperature Number(20.5) 1732098885000 #255 historical",
        ],
    );
    step("DDATA Edge1/Pump7", "CLDG4sq0MhILEAsYsMbiyrQyUAgYAA==", &["Inputs/Count Number(8.0) 1732102366000 #0"]);
    step(
        "DDATA Edge9/Pump1",
        "CMjhhsm0MhISEAoYyOGGybQyaQAAAAAAAPA/GAU=",
        &[" UnknownAlias(10) 1732098765000 #5", "rebirth"],
    );
    assert_eq!(memory.node("Plant1", "Edge1").unwrap().birth, Some(1_732_098_765_000));
}

#[test]
fn integers_by_their_type() {
    let value = |datatype: u64, field: u64, raw: u64| {
        let metric = bytes(2, &[bytes(1, b"m"), int(4, datatype), int(field, raw)].concat());
        let memory = &mut MapMemory::default();
        let message = decode(topic("NDATA", "n", None), &metric, 0, memory).unwrap();
        match message.samples[0].value {
            SampleValue::Number(number) => SampleValue::Number(number),
            SampleValue::Bool(value) => SampleValue::Bool(value),
            _ => SampleValue::Other,
        }
    };
    let number = SampleValue::Number;
    assert_eq!(value(1, 10, 0xff), number(-1.0));
    assert_eq!(value(1, 10, 0xffff_fff9), number(-7.0));
    assert_eq!(value(2, 10, 0x8000), number(-32_768.0));
    assert_eq!(value(3, 10, 0xffff_ffff), number(-1.0));
    assert_eq!(value(3, 10, u64::MAX), number(-1.0));
    assert_eq!(value(4, 11, u64::MAX - 4), number(-5.0));
    assert_eq!(value(5, 10, 200), number(200.0));
    assert_eq!(value(6, 10, 65_535), number(65_535.0));
    assert_eq!(value(7, 11, 0xffff_ffff), number(4_294_967_295.0));
    assert_eq!(value(8, 11, u64::MAX), number(1.844_674_407_370_955_2e19));
    assert_eq!(value(0, 11, 9), number(9.0));
    assert_eq!(value(11, 10, 1), SampleValue::Bool(true));
    assert_eq!(value(13, 11, 5), SampleValue::Other);
    assert_eq!(value(22, 10, 5), SampleValue::Other);
}

#[test]
fn other_values() {
    let metrics = [
        vec![bytes(1, b"nan"), double(f64::NAN)],
        vec![bytes(1, b"null"), int(7, 1), double(1.0)],
        vec![bytes(1, b"bytes"), int(4, 17), bytes(16, &[1])],
        vec![bytes(1, b"set"), int(4, 16), bytes(17, &[])],
        vec![bytes(1, b"text"), int(4, 12), bytes(15, b"5.5")],
        vec![double(1.0)],
    ];
    check(
        &mut MapMemory::default(),
        "NDATA n",
        &payload(1, &metrics),
        &[
            "nan Absent 1000 #1",
            "null Absent 1000 #1",
            "bytes Other 1000 #1",
            "set Other 1000 #1",
            "text Text(\"5.5\") 1000 #1",
            " Malformed(\"a metric has neither a name nor an alias\") 1000 #1",
        ],
    );
}

#[test]
fn units_are_remembered_and_quality_is_of_the_message() {
    let unit = bytes(2, &[int(1, 12), bytes(8, b"bar")].concat());
    let quality = |value| bytes(2, &[int(1, 3), int(3, value)].concat());
    let keys = [bytes(1, b"Quality"), bytes(1, b"engUnit")].concat();
    let properties = |value| bytes(9, &[keys.clone(), quality(value), unit.clone()].concat());
    let birth = payload(0, &[vec![bytes(1, b"p"), int(2, 4), double(1.0), properties(192)]]);
    let bad = payload(1, &[vec![int(2, 4), double(2.0), bytes(9, &[bytes(1, b"quality"), quality(0)].concat())]]);
    let mut memory = MapMemory::default();
    check(&mut memory, "DBIRTH n/d", &birth, &["p Number(1.0) 1000 #0 bar", "online true"]);
    check(&mut memory, "DDATA n/d", &bad, &["p Number(2.0) 1000 #1 bar bad"]);
    let named = payload(0, &[vec![bytes(1, b"q"), int(4, 1), int(10, 1)]]);
    check(&mut memory, "DBIRTH n/d", &named, &["q Number(1.0) 1000 #0", "online true"]);
    // The birth defines the type of a metric without an alias too, and takes the place of the one before.
    let data = payload(2, &[vec![bytes(1, b"q"), int(10, 0xff)], vec![int(2, 4), double(1.0)]]);
    check(&mut memory, "DDATA n/d", &data, &["q Number(-1.0) 1000 #2", " UnknownAlias(4) 1000 #2", "rebirth"]);
}

#[test]
fn a_birth_of_the_node_replaces_those_of_its_devices() {
    let metric = |alias| vec![bytes(1, b"m"), int(2, alias), double(1.0)];
    let data = payload(3, &[vec![int(2, 2), double(5.0)]]);
    let mut memory = MapMemory::default();
    apply(&mut memory, "NBIRTH n", &payload(0, &[metric(1)]), 0);
    apply(&mut memory, "DBIRTH n/d", &payload(1, &[metric(2)]), 0);
    assert_eq!(apply(&mut memory, "DDATA n/d", &data, 0), ["m Number(5.0) 1000 #3"]);
    apply(&mut memory, "NBIRTH n", &payload(0, &[metric(1)]), 0);
    let asked = [0, 59_999, 60_000].map(|arrival_ms| apply(&mut memory, "DDATA n/d", &data, arrival_ms).len());
    assert_eq!(asked, [2, 1, 2]);
    // One message was missing before the data, and two after the second birth.
    assert_eq!(memory.sequence_gaps().collect::<Vec<_>>(), [("Plant1", "n", 2)]);
}

#[test]
fn deaths() {
    let session = |number| vec![bytes(1, b"bdSeq"), int(4, 8), int(11, number)];
    let mut memory = MapMemory::default();
    check(&mut memory, "NDEATH n", &payload(0, &[session(1)]), &["online false"]);
    assert!(memory.is_empty());
    apply(&mut memory, "NBIRTH n", &payload(0, &[session(2)]), 0);
    check(&mut memory, "NDEATH n", &payload(0, &[session(1)]), &[]);
    check(&mut memory, "DDEATH n/d", &payload(1, &[]), &["online false"]);
    check(&mut memory, "NDEATH n", &payload(0, &[session(2)]), &["online false"]);
    assert!(!memory.node("Plant1", "n").unwrap().is_online);
}

#[test]
fn a_birth_beyond_the_bound_is_told() {
    let metrics: Vec<_> = (0..1_030).map(|alias| vec![bytes(1, b"m"), int(2, alias), double(1.0)]).collect();
    let lines = apply(&mut MapMemory::default(), "DBIRTH n/d", &payload(0, &metrics), 0);
    assert_eq!(lines.len(), 1_032);
    assert!(lines[1_030].contains("6 metrics of the birth are more than weir remembers"), "{}", lines[1_030]);
}

#[test]
fn faults_are_told() {
    let mut memory = MapMemory::default();
    let mut refused = |to: &str, payload: &[u8]| decode(topic_of(to), payload, 0, &mut memory).unwrap_err();
    assert_eq!(refused("NBIRTH n", &[0x12, 9, 1]), "cut short: a field goes beyond the end of its message (at byte 2)");
    assert_eq!(refused("NDATA n", &bytes(2, &bytes(1, &[0xff]))), "the name of a metric is not UTF-8 (before byte 5)");
    assert_eq!(refused("XDATA n", &[]), "`XDATA` in the topic is no type of message of Sparkplug B");
    assert_eq!(refused("DDATA n", &[]), "the topic of a DDATA names no device");
    assert_eq!(refused("NDATA n/d", &[]), "the topic of an NDATA names a device, and that of a node has none");
    assert!(memory.is_empty());
    check(&mut memory, "NCMD n", &[0xff], &[]);
}

proptest! {
    #[test]
    fn never_panics(
        messages in proptest::collection::vec(
            (0_usize..6, proptest::collection::vec(any::<u8>(), 0..48), any::<bool>(), any::<i64>()), 0..8,
        ),
    ) {
        let types = ["NBIRTH n", "DBIRTH n/d", "NDATA n", "DDATA n/d", "NDEATH n", "DDEATH n/d"];
        let mut memory = MapMemory::default();
        for (kind, content, is_metric, arrival_ms) in messages {
            let content = if is_metric { bytes(2, &content) } else { content };
            let _ = decode(topic_of(types[kind]), &content, arrival_ms, &mut memory);
        }
        let mut stored = Vec::new();
        memory.encode(&mut stored);
        let mut reader = crate::core::codec::FieldReader::new(&stored);
        prop_assert_eq!(MapMemory::decode(&mut reader), Ok(memory));
    }
}
