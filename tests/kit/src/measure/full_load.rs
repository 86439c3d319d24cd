//! Devices that publish as fast as they are acknowledged.

use std::io;
use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::client::{LoadClient, connect_packet};
use super::form::{BenchForm, BenchMessage};
use super::reading::now_ms;
use crate::mqtt::{MqttVersion, TestPublish};

/// Outcome of one device.
pub struct LoadedDevice {
    pub name: String,
    /// Number of acknowledged messages; they are numbered from 0.
    pub acknowledged: u64,
    /// The error that ended the device early.
    pub outcome: io::Result<()>,
}

/// Load of devices that publish as fast as weir acknowledges.
#[derive(Clone, Copy)]
pub struct FullLoad {
    pub form: BenchForm,
    pub devices: u64,
    /// Unacknowledged publishes of one device.
    pub in_flight: u64,
    /// Messages of one device.
    pub messages: u64,
}

impl FullLoad {
    /// Runs the load until each device has sent all messages or lost its connection. Device names begin with `name`.
    pub async fn run(self, address: SocketAddr, name: &str) -> Vec<LoadedDevice> {
        let mut devices = JoinSet::new();
        for index in 0..self.devices {
            devices.spawn(self.device(address, format!("{name}-{index:05}")));
        }
        devices.join_all().await
    }

    async fn device(self, address: SocketAddr, name: String) -> LoadedDevice {
        let mut acknowledged = 0;
        let outcome = self.publish(address, &name, &mut acknowledged).await;
        LoadedDevice { name, acknowledged, outcome }
    }

    async fn publish(self, address: SocketAddr, device: &str, acknowledged: &mut u64) -> io::Result<()> {
        let mut client = LoadClient::connect(address, &connect_packet(device, None)).await?;
        if let Some((topic, payload)) = self.form.greeting(device, now_ms()) {
            let greeting = TestPublish { topic: &topic, payload: &payload, qos: 1, id: 1, ..TestPublish::default() };
            let mut packet = Vec::new();
            greeting.write(MqttVersion::V4, &mut packet);
            client.publish(&packet).await?;
        }
        let (mut topic, mut payload, mut time_ms) = (String::new(), Vec::new(), 0);
        let write = |seq: u64, packet_id, out: &mut Vec<u8>| {
            // One time for all messages of one write: reading the clock costs a noticeable part of a publish.
            if out.is_empty() {
                time_ms = now_ms();
            }
            BenchMessage { form: self.form, device, seq, time_ms }.write(&mut topic, &mut payload);
            let publish =
                TestPublish { topic: &topic, payload: &payload, qos: 1, id: packet_id, ..TestPublish::default() };
            publish.write(MqttVersion::V4, out);
        };
        client.publish_all(self.messages, self.in_flight, acknowledged, write).await
    }
}
