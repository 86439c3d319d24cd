//! Payloads on topics that maps take, for the operator: one entry for each form of payload.

use weir::core::formats::{MapSettings, PayloadFormat};
use weir::core::operator::Operator;
use weir::core::settings::Settings;

use super::payload::{Count, publish};

const ARRIVAL_MS: i64 = 1_767_225_600_000;

/// A JSON document.
pub fn map_json(data: &[u8]) {
    one_message(PayloadFormat::Json, data);
}

/// One value.
pub fn map_scalar(data: &[u8]) {
    one_message(PayloadFormat::Scalar, data);
}

/// Influx line protocol.
pub fn map_line(data: &[u8]) {
    one_message(PayloadFormat::Line, data);
}

/// SenML in JSON.
pub fn map_senml(data: &[u8]) {
    one_message(PayloadFormat::Senml, data);
}

/// SenML in CBOR.
pub fn map_senml_cbor(data: &[u8]) {
    one_message(PayloadFormat::SenmlCbor, data);
}

/// Ruuvi frames: the input as it is, and as the content of a frame.
pub fn map_ruuvi(data: &[u8]) {
    one_message(PayloadFormat::Ruuvi, data);
    let content: String = data.iter().take(200).map(|byte| format!("{byte:02x}")).collect();
    let part = (content.len() / 2 + 3) as u8;
    let message = format!(r#"{{"rssi":-26,"ts":"1653668027","data":"{part:02x}ff9904{content}"}}"#);
    one_message(PayloadFormat::Ruuvi, message.as_bytes());
}

/// Sparkplug B: several messages, each with its type and its length in front.
pub fn map_sparkplug_b(mut data: &[u8]) {
    const TOPICS: [&str; 6] = [
        "spBv1.0/g/NBIRTH/n",
        "spBv1.0/g/DBIRTH/n/d",
        "spBv1.0/g/NDATA/n",
        "spBv1.0/g/DDATA/n/d",
        "spBv1.0/g/NDEATH/n",
        "spBv1.0/g/DDEATH/n/d",
    ];
    let mut messages = Vec::new();
    while let Some((&[topic, len], rest)) = data.split_first_chunk() {
        let (payload, rest) = rest.split_at(usize::from(len).min(rest.len()));
        messages.push((TOPICS[usize::from(topic) % TOPICS.len()], payload));
        data = rest;
    }
    run_map(
        MapSettings {
            payload: PayloadFormat::SparkplugB,
            topics: vec!["spBv1.0/{group}/{type}/{node}".into(), "spBv1.0/{group}/{type}/{node}/{device}".into()],
            device: "{group}.{node}.{device|}".into(),
            seq_bits: Some(8),
            ..MapSettings::default()
        },
        &messages,
    );
}

fn one_message(payload: PayloadFormat, data: &[u8]) {
    let map = MapSettings {
        payload,
        topics: vec!["map/{device}/{name}".into()],
        device: "{tag:host|bn|device}".into(),
        metric: "{measurement|name}.{key}".into(),
        ..MapSettings::default()
    };
    run_map(map, &[("map/d/m", data)]);
}

/// MQTT discovery of Home Assistant: the input is a configuration, and then the payload of the topic that it may name.
pub fn map_homeassistant_discovery(data: &[u8]) {
    let discovery = MapSettings {
        name: "discovery".into(),
        payload: PayloadFormat::HomeassistantDiscovery,
        topics: vec!["homeassistant/{component}/{object}/config".into()],
        device: "{object}".into(),
        ..MapSettings::default()
    };
    let states = MapSettings { name: "states".into(), topics: vec!["map/{device}/{name}".into()], ..discovery.clone() };
    let states = MapSettings { payload: PayloadFormat::Json, device: "{device}".into(), ..states };
    run(
        vec![discovery, states],
        &[("homeassistant/sensor/o/config", data), ("map/d/m", data), ("map/d/m", b"{\"t\":1}")],
    );
}

fn run_map(map: MapSettings, messages: &[(&str, &[u8])]) {
    run(vec![MapSettings { name: "fuzz".into(), ..map }], messages);
}

/// Applies the messages twice, the second time a minute later.
fn run(maps: Vec<MapSettings>, messages: &[(&str, &[u8])]) {
    let settings = Settings { maps, ..Settings::default() };
    let mut operator = Operator::new(settings);
    let mut out = Count::default();
    let records: Vec<_> = messages.iter().map(|(topic, payload)| publish(topic, false, payload)).collect();
    let mut lsn = 0;
    for arrival_ms in [ARRIVAL_MS, ARRIVAL_MS + 60_000] {
        let applied = operator.apply(lsn, arrival_ms, records.iter().map(Vec::as_slice), &mut out);
        applied.expect("records of this format are applied whatever their payload is");
        lsn += records.len() as u64;
    }
    assert_eq!(operator.totals().unaccounted(), 0, "every reading has one outcome");
}
