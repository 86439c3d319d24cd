//! Devices that publish as fast as they are acknowledged.

use std::io;
use std::net::SocketAddr;

use tokio::task::JoinSet;

use super::client::{LoadClient, connect_packet};
use super::reading::{BenchReading, METRICS, now_ms};

/// Outcome of one device.
pub struct LoadedDevice {
    pub name: String,
    /// Number of acknowledged readings; they are numbered from 0.
    pub acknowledged: u64,
    /// The error that ended the device early.
    pub outcome: io::Result<()>,
}

/// Load of devices that publish as fast as weir acknowledges.
#[derive(Clone, Copy)]
pub struct FullLoad {
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
        let (mut payload, mut time_ms) = (String::new(), 0);
        let write = |seq: u64, packet_id, out: &mut Vec<u8>| {
            let metric = METRICS[seq as usize % METRICS.len()];
            // One time for all messages of one write: reading the clock costs a noticeable part of a publish.
            if out.is_empty() {
                time_ms = now_ms();
            }
            BenchReading { device, metric, seq, time_ms, named: true }.publish(packet_id, &mut payload, out);
        };
        client.publish_all(self.messages, self.in_flight, acknowledged, write).await
    }
}
