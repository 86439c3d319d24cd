//! Forms in which the devices of a fleet publish: weir's own, and those of families of devices.
//!
//! A family's payloads, topics, status and last will are those of real devices of the family with their default settings. What a family
//! cannot say, its simulated devices do not say either: most have no sequence number, so that weir counts a message twice
//! that is published twice, and Tasmota's times have whole seconds.

use clap::ValueEnum;

use crate::simulator::sparkplug_payload;

/// Form in which the devices of a fleet publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum DeviceFormat {
    /// weir's own form on `ingest.telemetry_topics`, with sequence numbers and reports of faults.
    #[default]
    Native,
    /// Tasmota: `tele/DEVICE/SENSOR`, times in seconds.
    Tasmota,
    /// Zigbee2MQTT: `zigbee2mqtt/DEVICE`, with `last_seen`.
    Zigbee2mqtt,
    /// Shelly of the second generation: `DEVICE/events/rpc`, times in hundredths of a second.
    ShellyGen2,
    /// Sparkplug B: each device is an edge node of the group `weir`, with births, aliases and deaths.
    SparkplugB,
    /// SenML in JSON: `senml/DEVICE`.
    Senml,
    /// Influx line protocol as of Telegraf: `telegraf/DEVICE/sensors`.
    Influx,
    /// The Things Stack version 3: `v3/weir@sim/devices/DEVICE/up`, with a frame counter.
    TtnV3,
}

impl DeviceFormat {
    /// Name of the map that takes the messages; `None` for weir's own form, which needs none.
    pub fn map(self) -> Option<&'static str> {
        match self {
            Self::Native => None,
            Self::Tasmota => Some("tasmota"),
            Self::Zigbee2mqtt => Some("zigbee2mqtt"),
            Self::ShellyGen2 => Some("shelly_gen2"),
            Self::SparkplugB => Some("sparkplug_b"),
            Self::Senml => Some("senml"),
            Self::Influx => Some("influx"),
            Self::TtnV3 => Some("ttn_v3"),
        }
    }

    /// Topic of the readings of the device `name`; weir's own form has it from the configuration.
    pub fn topic(self, name: &str) -> String {
        match self {
            Self::Native => String::new(),
            Self::Tasmota => format!("tele/{name}/SENSOR"),
            Self::Zigbee2mqtt => format!("zigbee2mqtt/{name}"),
            Self::ShellyGen2 => format!("{name}/events/rpc"),
            Self::SparkplugB => sparkplug_payload::topic("NDATA", name),
            Self::Senml => format!("senml/{name}"),
            Self::Influx => format!("telegraf/{name}/sensors"),
            Self::TtnV3 => format!("v3/weir@sim/devices/{name}/up"),
        }
    }

    /// The id that weir gives to the device `name`.
    pub fn device_id(self, name: &str) -> String {
        match self {
            Self::SparkplugB => format!("{}.{name}", sparkplug_payload::GROUP),
            _ => name.to_owned(),
        }
    }

    /// The metric under which weir shows the values of the fleet's metric `name`.
    pub fn metric(self, name: &str) -> String {
        match self {
            Self::Tasmota => format!("BME280.{}", capitalised(name)),
            Self::ShellyGen2 => format!("switch:0.{name}"),
            Self::Influx => format!("sensors.{name}"),
            _ => name.to_owned(),
        }
    }

    /// Smallest step of the times that the form can say, milliseconds.
    pub fn resolution_ms(self) -> i64 {
        match self {
            Self::Tasmota => 1_000,
            Self::ShellyGen2 => 10,
            _ => 1,
        }
    }

    /// Whether a message says which one it is, so that weir does not count it again when it is published again.
    pub fn tells_repeats(self) -> bool {
        matches!(self, Self::Native | Self::TtnV3)
    }
}

/// `name` with a capital letter at its beginning.
pub(super) fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
