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

/// The device id of such a text.
fn id_of(text: &str) -> Box<str> {
    text.split_once(' ').unwrap().1.replace('/', ".").into()
}

/// The number of a message without metrics, continued to 64 bits.
fn position(memory: &mut MapMemory, to: &str, seq: u64) -> Option<u64> {
    decode(topic_of(to), &payload(seq, &[]), ARRIVAL_MS, || id_of(to), memory).unwrap().position
}

/// Applies a message; what it gives, as lines of text.
fn apply(memory: &mut MapMemory, to: &str, payload: &[u8], arrival_ms: i64) -> Vec<String> {
    let message = decode(topic_of(to), payload, arrival_ms, || id_of(to), memory).unwrap();
    let mut lines: Vec<_> = message.samples.iter().map(shown).collect();
    lines.extend(message.online.map(|online| format!("online {online}")));
    lines.extend(message.offline.iter().map(|id| format!("{id} offline")));
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
            // The numbers 4 to 254 did not come.
            "rebirth",
        ],
    );
    step("DDATA Edge1/Pump7", "CLDG4sq0MhILEAsYsMbiyrQyUAgYAA==", &["Inputs/Count Number(8.0) 1732102366000 #0"]);
    step(
        "DDATA Edge9/Pump1",
        "CMjhhsm0MhISEAoYyOGGybQyaQAAAAAAAPA/GAU=",
        &[" UnknownAlias(10) 1732098765000 #5", "rebirth"],
    );
    let shown: Vec<_> = memory.edge_nodes(9).into_iter().map(|node| (node.node, node.gaps, node.missed)).collect();
    assert_eq!(shown, [("Plant1/Edge1".into(), 1, 251), ("Plant1/Edge9".into(), 0, 0)]);
}

#[test]
fn integers_by_their_type() {
    let value = |datatype: u64, field: u64, raw: u64| {
        let metric = bytes(2, &[bytes(1, b"m"), int(4, datatype), int(field, raw)].concat());
        let memory = &mut MapMemory::default();
        let message = decode(topic("NDATA", "n", None), &metric, 0, || id_of("NDATA n"), memory).unwrap();
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
            "rebirth",
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
    apply(&mut memory, "NBIRTH n", &payload(255, &[]), 0);
    check(&mut memory, "DBIRTH n/d", &birth, &["p Number(1.0) 1000 #0 bar", "online true"]);
    check(&mut memory, "DDATA n/d", &bad, &["p Number(2.0) 1000 #1 bar bad"]);
    let named = payload(2, &[vec![bytes(1, b"q"), int(4, 1), int(10, 1)]]);
    check(&mut memory, "DBIRTH n/d", &named, &["q Number(1.0) 1000 #2", "online true"]);
    // The birth defines the type of a metric without an alias too, and takes the place of the one before.
    let data = payload(3, &[vec![bytes(1, b"q"), int(10, 0xff)], vec![int(2, 4), double(1.0)]]);
    check(&mut memory, "DDATA n/d", &data, &["q Number(-1.0) 1000 #3", " UnknownAlias(4) 1000 #3", "rebirth"]);
}

/// A metric with an alias.
fn metric(alias: u64) -> Vec<Vec<u8>> {
    vec![bytes(1, b"m"), int(2, alias), double(1.0)]
}

/// The number of the session of a node.
fn session(number: u64) -> Vec<Vec<u8>> {
    vec![bytes(1, b"bdSeq"), int(4, 8), int(11, number)]
}

/// A birth of a node at a time, in a session.
fn node_birth(time_ms: u64, number: u64) -> Vec<u8> {
    [int(1, time_ms), bytes(2, &session(number).concat()), int(3, 0)].concat()
}

#[test]
fn a_birth_of_the_node_replaces_those_of_its_devices() {
    let data = |seq| payload(seq, &[vec![int(2, 2), double(5.0)]]);
    let mut memory = MapMemory::default();
    apply(&mut memory, "NBIRTH n", &node_birth(1, 1), 0);
    apply(&mut memory, "DBIRTH n/d", &payload(1, &[metric(2)]), 0);
    assert_eq!(apply(&mut memory, "DDATA n/d", &data(2), 0), ["m Number(5.0) 1000 #2"]);
    apply(&mut memory, "NBIRTH n", &node_birth(2, 1), 0);
    let asked = [(1, 0), (2, 59_999), (3, 60_000)];
    let asked = asked.map(|(seq, arrival_ms)| apply(&mut memory, "DDATA n/d", &data(seq), arrival_ms).len());
    assert_eq!(asked, [2, 1, 2]);
}

#[test]
fn messages_that_are_missing_ask_for_births() {
    let mut memory = MapMemory::default();
    apply(&mut memory, "NBIRTH n", &node_birth(1, 1), 0);
    check(&mut memory, "DBIRTH n/d", &payload(1, &[metric(2)]), &["m Number(1.0) 1000 #1", "online true"]);
    check(&mut memory, "DDATA n/d", &payload(3, &[]), &["rebirth"]);
    check(&mut memory, "DDATA n/d", &payload(9, &[]), &[]);
    check(&mut memory, "NBIRTH n", &node_birth(2, 1), &["bdSeq Number(1.0) 2 #0", "online true"]);
    check(&mut memory, "DBIRTH n/d", &payload(1, &[]), &["online true"]);
    check(&mut memory, "DDATA n/d", &payload(2, &[]), &[]);
    let totals = memory.totals();
    assert_eq!((totals.gaps, totals.missed), (2, 6));
}

#[test]
fn births_that_are_not_known_are_asked_for() {
    let named = payload(7, &[vec![bytes(1, b"t"), double(1.0)]]);
    let mut memory = MapMemory::default();
    check(&mut memory, "NDATA a", &named, &["t Number(1.0) 1000 #7", "rebirth"]);
    check(&mut memory, "DBIRTH b/d", &named, &["t Number(1.0) 1000 #7", "online true", "rebirth"]);
    apply(&mut memory, "NBIRTH c", &node_birth(1, 1), 0);
    check(&mut memory, "DDATA c/d", &payload(1, &[]), &["rebirth"]);
    check(&mut memory, "DDEATH e/d", &named, &["online false"]);
}

#[test]
fn all_devices_of_a_node_share_its_numbers() {
    let mut memory = MapMemory::default();
    let mut follow = |to: &str, seq| position(&mut memory, to, seq);
    assert_eq!(follow("NBIRTH n", 254), Some(254));
    assert_eq!(follow("DBIRTH n/a", 255), Some(255));
    assert_eq!(follow("DBIRTH n/b", 0), Some(256));
    assert_eq!((follow("DDATA n/a", 1), follow("DDATA n/b", 2)), (Some(257), Some(258)));
    // The same message again, across the wrap.
    assert_eq!((follow("DBIRTH n/a", 255), follow("DDATA n/a", 3)), (Some(255), Some(259)));
    // A death of the node has no number.
    assert_eq!((follow("NDEATH n", 4), follow("DDEATH n/a", 4)), (None, Some(260)));
    assert_eq!(follow("NBIRTH n", 0), Some(0));
    assert_eq!(memory.totals().gaps, 0);
}

#[test]
fn each_birth_of_a_node_begins_a_run_unless_it_comes_again() {
    let mut memory = MapMemory::default();
    let mut run = |time_ms, number| {
        let payload = node_birth(time_ms, number);
        let message = decode(topic_of("NBIRTH n"), &payload, 77, || id_of("NBIRTH n"), &mut memory).unwrap();
        (message.boot.unwrap(), message.position)
    };
    assert_eq!(run(5, 1), ("5.1".into(), Some(0)));
    assert_eq!(run(5, 1), ("5.1".into(), Some(0)));
    assert_eq!(run(6, 1), ("6.2".into(), Some(0)));
    assert_eq!(run(6, 2), ("6.3".into(), Some(0)));
    // A node without a clock.
    assert_eq!(run(0, 2), ("77.4".into(), Some(0)));
    assert_eq!(run(0, 2), ("77.5".into(), Some(0)));
    check(&mut memory, "DBIRTH n/d", &payload(1, &[metric(3)]), &["m Number(1.0) 1000 #1", "online true"]);
}

#[test]
fn a_birth_that_comes_again_forgets_nothing() {
    let mut memory = MapMemory::default();
    apply(&mut memory, "NBIRTH n", &node_birth(5, 1), 0);
    apply(&mut memory, "DBIRTH n/d", &payload(1, &[metric(3)]), 0);
    check(&mut memory, "NBIRTH n", &node_birth(5, 1), &["bdSeq Number(1.0) 5 #0", "online true"]);
    let data = payload(2, &[vec![int(2, 3), double(2.0)]]);
    check(&mut memory, "DDATA n/d", &data, &["m Number(2.0) 1000 #2"]);
}

#[test]
fn deaths() {
    let mut memory = MapMemory::default();
    check(&mut memory, "NDEATH n", &payload(0, &[session(1)]), &["online false"]);
    assert!(memory.is_empty());
    apply(&mut memory, "NBIRTH n", &node_birth(1, 2), 0);
    for (seq, device) in [(1, "DBIRTH n/a"), (2, "DBIRTH n/b"), (3, "DBIRTH n/c")] {
        check(&mut memory, device, &payload(seq, &[]), &["online true"]);
    }
    check(&mut memory, "NDEATH n", &payload(0, &[session(1)]), &[]);
    check(&mut memory, "DDEATH n/b", &payload(4, &[]), &["online false"]);
    check(&mut memory, "NDEATH n", &payload(0, &[session(2)]), &["online false", "n.a offline", "n.c offline"]);
    check(&mut memory, "NDEATH n", &payload(0, &[session(2)]), &["online false"]);
}

#[test]
fn devices_are_offline_after_a_birth_of_another_session() {
    let mut memory = MapMemory::default();
    let born = |memory: &mut MapMemory, time_ms, number| {
        apply(memory, "NBIRTH n", &node_birth(time_ms, number), 0).split_off(1)
    };
    assert_eq!(born(&mut memory, 1, 2), ["online true"]);
    apply(&mut memory, "DBIRTH n/a", &payload(1, &[]), 0);
    // The node was asked for its births.
    assert_eq!(born(&mut memory, 2, 2), ["online true"]);
    // Its death did not come.
    assert_eq!(born(&mut memory, 3, 3), ["online true", "n.a offline"]);
    apply(&mut memory, "DBIRTH n/a", &payload(1, &[]), 0);
    assert_eq!(born(&mut memory, 4, 3), ["online true"]);
}

#[test]
fn a_birth_beyond_the_bound_is_told() {
    let metrics: Vec<_> = (0..262).map(metric).collect();
    let mut memory = MapMemory::default();
    apply(&mut memory, "NBIRTH n", &payload(0, &[]), 0);
    let lines = apply(&mut memory, "DBIRTH n/d", &payload(1, &metrics), 0);
    assert_eq!(lines.len(), 264);
    let told = "6 metrics of the birth are more than weir remembers (limits.metrics_per_device: 256)";
    assert!(lines[262].contains(told), "{}", lines[262]);
}

#[test]
fn a_node_without_room_stands_for_itself() {
    let mut memory = MapMemory::default();
    for node in 0..4_096 {
        apply(&mut memory, &format!("NBIRTH {node}"), &payload(0, &[]), 0);
    }
    check(&mut memory, "NBIRTH n", &payload(0, &[metric(1)]), &["m Number(1.0) 1000 #0", "online true"]);
    let data = payload(1, &[vec![int(2, 1), double(2.0)]]);
    check(&mut memory, "NDATA n", &data, &[" UnknownAlias(1) 1000 #1"]);
    check(&mut memory, "DDEATH n/d", &payload(1, &[]), &["online false"]);
    assert_eq!(position(&mut memory, "NDATA n", 2), None);
}

#[test]
fn a_compressed_payload_is_unpacked() {
    use std::io::Write as _;
    let inner = payload(4, &[metric(1)]);
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(&inner).unwrap();
    let packed = |body: &[u8]| [bytes(4, b"SPBV1.0_COMPRESSED"), bytes(5, body)].concat();
    assert_eq!(unpacked_body(&packed(&zlib.finish().unwrap())), Ok(Some(inner.clone())));
    assert_eq!(unpacked_body(&[bytes(4, b"other"), bytes(5, &inner)].concat()), Ok(None));
    assert_eq!(unpacked_body(&inner), Ok(None));
    assert!(unpacked_body(&packed(b"plain")).unwrap_err().contains("neither zlib nor gzip"));
}

#[test]
fn faults_are_told() {
    let mut memory = MapMemory::default();
    let mut refused =
        |to: &str, payload: &[u8]| decode(topic_of(to), payload, 0, || id_of(to), &mut memory).unwrap_err();
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
            let _ = decode(topic_of(types[kind]), &content, arrival_ms, || id_of(types[kind]), &mut memory);
        }
        let mut stored = Vec::new();
        memory.encode(&mut stored);
        let mut reader = crate::core::codec::FieldReader::new(&stored);
        prop_assert_eq!(MapMemory::decode(&mut reader), Ok(memory));
    }
}
