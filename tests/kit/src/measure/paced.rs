//! Fleets whose devices publish at a steady pace.

use std::io;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::client::LoadClient;
use super::reading::{BenchReading, now_ms};
use super::times::Times;

/// Load of one connection that publishes at a steady pace.
#[derive(Clone, Copy)]
pub struct SteadyLoad {
    /// Devices that publish over one connection, in turn.
    pub devices: u64,
    /// Metrics of one device, in turn.
    pub metrics: &'static [&'static str],
    /// Time between two messages of one device.
    pub interval: Duration,
    /// Duration of the load.
    pub time: Duration,
    /// Whether payloads name their device, as topics do.
    pub named: bool,
}

/// Result of a steady load.
pub struct SteadyLoadOutcome {
    /// Times from writing a PUBLISH to reading its PUBACK.
    pub times: Times,
    /// Connections that ended early.
    pub lost: usize,
}

impl SteadyLoad {
    /// Runs the load on all connections. Their publishes are spread evenly over the interval.
    pub async fn run(self, clients: Vec<LoadClient>) -> SteadyLoadOutcome {
        let (mut connections, count, start) = (JoinSet::new(), clients.len() as u32, Instant::now());
        for (index, client) in clients.into_iter().enumerate() {
            let begin = start + self.between() * index as u32 / count;
            connections.spawn(self.connection(client, index as u64, begin, start + self.time));
        }
        let (mut times, mut lost) = (Vec::new(), 0);
        for (connection, outcome) in connections.join_all().await {
            times.extend(connection);
            lost += usize::from(outcome.is_err());
        }
        SteadyLoadOutcome { times: Times::of(times), lost }
    }

    /// Time between two publishes of one connection.
    fn between(self) -> Duration {
        self.interval / self.devices as u32
    }

    async fn connection(
        self,
        client: LoadClient,
        index: u64,
        begin: Instant,
        end: Instant,
    ) -> (Vec<Duration>, io::Result<()>) {
        let mut times = Vec::new();
        let outcome = self.publish(client, index, begin, end, &mut times).await;
        (times, outcome)
    }

    async fn publish(
        self,
        mut client: LoadClient,
        index: u64,
        begin: Instant,
        end: Instant,
        times: &mut Vec<Duration>,
    ) -> io::Result<()> {
        let (mut next, mut number) = (begin, 0);
        let (mut payload, mut out) = (String::new(), Vec::new());
        while next < end {
            sleep_until(next).await;
            let (device, seq) = (index * self.devices + number % self.devices, number / self.devices);
            let metric = self.metrics[seq as usize % self.metrics.len()];
            let device = format!("paced-{device:06}");
            out.clear();
            let reading = BenchReading { device: &device, metric, seq, time_ms: now_ms(), named: self.named };
            reading.publish(1, &mut payload, &mut out);
            times.push(client.publish(&out).await?);
            next += self.between();
            number += 1;
        }
        Ok(())
    }
}
