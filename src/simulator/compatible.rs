//! Whether weir's maps make of the fleet's messages what the verification expects.

use crate::config::Config;
use crate::core::formats::{MapMemory, MapSettings, MappedElement, MappedTime, Maps};
use crate::simulator::SimulatorError;
use crate::simulator::family_encoder::FamilyEncoder;
use crate::simulator::format::DeviceFormat;
use crate::simulator::message::{DeviceMessage, MessageContent, Publication};
use crate::simulator::options::FleetOptions;

/// Any time at which a device may say something.
const SOME_TIME_MS: i64 = 1_732_098_765_120;

/// Checks that the maps of `config`, which must be the configuration of the weir that the fleet publishes to, take the messages.
///
/// # Errors
/// [`SimulatorError::Invalid`] with what to change.
pub fn check(options: &FleetOptions, config: &Config) -> Result<(), SimulatorError> {
    let (Some(map), Some(mut encoder)) = (options.format.map(), FamilyEncoder::new(options, &options.device_id(0)))
    else {
        return Ok(());
    };
    let invalid = |sentence: String| Err(SimulatorError::Invalid(sentence));
    let settings: Vec<MapSettings> = config.ingest.maps_on().map(|map| map.settings.clone()).collect();
    let maps = Maps::new(&settings).unwrap_or_default();
    let event_ms = SOME_TIME_MS - SOME_TIME_MS % options.format.resolution_ms();
    let values = (0..options.metrics.len()).map(|index| index as f64 + 0.5).collect();
    let message = DeviceMessage { seq: 0, event_ms, content: MessageContent::Readings(values) };
    encoder.begin_session(event_ms);
    let greeting = encoder.greeting(event_ms);
    let publication = encoder.encode(&message, false);
    let topic = &publication.topic;
    if maps.find(topic).is_none() {
        return invalid(format!(
            "weir takes no messages on {topic}: no map for them is on; set ingest.presets = [\"auto\", {map:?}]"
        ));
    }
    let mut memory = MapMemory::default();
    let mut shown = Vec::new();
    for sent in greeting.iter().chain([&publication]) {
        shown.extend(readings(&maps, &mut memory, sent, &encoder.payload_to_send(sent)));
    }
    let wanted: Vec<FleetReading> = options.metrics.iter().map(|metric| expected(options, metric, event_ms)).collect();
    match wanted.iter().find(|reading| !shown.contains(reading)) {
        None => Ok(()),
        Some((device, metric, time_ms)) => invalid(format!(
            "weir's map for {topic} does not make the metric {metric} of {device} at {time_ms} from a message of {map}; \
             give --metrics that it takes, or use the preset {map:?} as it is",
            time_ms = time_ms.unwrap_or_default(),
        )),
    }
}

/// Device, metric and event time of a reading; no time means arrival.
type FleetReading = (String, String, Option<i64>);

fn expected(options: &FleetOptions, metric: &str, event_ms: i64) -> FleetReading {
    let format: DeviceFormat = options.format;
    (format.device_id(&options.device_id(0)), format.metric(metric), Some(event_ms))
}

fn readings(maps: &Maps, memory: &mut MapMemory, sent: &Publication, payload: &[u8]) -> Vec<FleetReading> {
    let Some(found) = maps.find(&sent.topic) else { return Vec::new() };
    let Ok(mapped) = maps.map(found, &sent.topic, payload, SOME_TIME_MS, memory) else { return Vec::new() };
    let of_element = |element: &MappedElement<'_>| {
        let time_ms = if let MappedTime::At(time_ms) = element.time { Some(time_ms) } else { None };
        let device = element.device.to_string();
        let reading = move |metric: &str| (device.clone(), metric.to_owned(), time_ms);
        element.readings.iter().map(|one| reading(&one.metric)).collect::<Vec<_>>()
    };
    mapped.elements.iter().flat_map(of_element).collect()
}
