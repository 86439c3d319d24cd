//! The settings and their defaults, one struct per section of the file. How they are read is in `keys` and `value`.

mod http;
mod mqtt;
mod process;
mod quotas;
mod readings;
mod simulator;
mod storage;
mod tenants;
mod tls;
mod units;

use std::net::SocketAddr;

use crate::core::settings::{Settings, TenantSettings};

pub use http::{HttpAuthConfig, HttpConfig, HttpTlsConfig, MetricsAccess};
pub use mqtt::{MqttAuthConfig, MqttConfig, MqttTlsConfig, OnDeniedPublish, RatesConfig};
pub use process::{LogConfig, NodeConfig};
pub use quotas::Quotas;
pub use readings::{DedupConfig, IngestConfig, LimitsConfig, ValidateConfig, WindowConfig};
pub use simulator::SimulatorConfig;
pub use storage::{ErrorsConfig, JournalConfig, OutputConfig, StateConfig};
pub use tenants::{Tenant, Tenants};
pub use tls::{ClientCertificates, TlsFiles};

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `[node]`
    pub node: NodeConfig,
    /// `[mqtt]`
    pub mqtt: MqttConfig,
    /// `[ingest]`
    pub ingest: IngestConfig,
    /// `[validate]`
    pub validate: ValidateConfig,
    /// `[dedup]`
    pub dedup: DedupConfig,
    /// `[window]`
    pub window: WindowConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[journal]`
    pub journal: JournalConfig,
    /// `[state]`
    pub state: StateConfig,
    /// `[windows]`
    pub windows: OutputConfig,
    /// `[errors]`
    pub errors: ErrorsConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[simulator]`
    pub simulator: SimulatorConfig,
    /// `[[tenants]]`
    pub tenants: Tenants,
}

impl Config {
    /// Every listener that is configured, with the key of its address.
    pub fn listeners(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let listeners = [
            ("mqtt.listen", Some(self.mqtt.listen)),
            ("mqtt.tls.listen", self.mqtt.tls.listen),
            ("http.listen", Some(self.http.listen)),
            ("http.tls.listen", self.http.tls.listen),
        ];
        listeners.into_iter().filter_map(|(key, address)| Some((key, address?)))
    }

    /// The settings that results depend on. They are recorded in the journal at each start, so that a replay uses the
    /// settings under which a message was first processed.
    pub fn settings(&self) -> Settings {
        Settings {
            telemetry_topics: self.ingest.telemetry_topics.clone(),
            error_topics: self.ingest.error_topics.clone(),
            timestamp_unit: self.ingest.timestamp_unit,
            numeric_strings: self.ingest.numeric_strings,
            sequence_bits: self.ingest.seq_bits,
            max_readings_per_message: self.ingest.max_readings_per_message,
            max_future_ms: self.validate.max_future_ms,
            max_age_ms: self.validate.max_age_ms,
            allowed_devices: self.validate.allowed_devices.clone(),
            metrics: self.validate.metrics.clone(),
            dedup: self.dedup.enabled,
            window_ms: self.window.size_ms,
            watermark: self.window.watermark,
            out_of_orderness_ms: self.window.out_of_orderness_ms,
            allowed_lateness_ms: self.window.allowed_lateness_ms,
            idle_timeout_ms: self.window.idle_timeout_ms,
            backlog: self.window.backlog,
            max_backlog_windows_per_device: self.limits.backlog_windows_per_device,
            max_backlog_windows: self.limits.backlog_windows,
            max_devices: self.limits.devices,
            max_devices_per_user: self.limits.devices_per_user(),
            max_new_devices_per_hour: self.limits.new_devices_per_hour,
            max_metrics_per_device: self.limits.metrics_per_device,
            device_ttl_ms: self.state.device_ttl_ms,
            store_duplicates: self.errors.store_duplicates,
            tenants: self
                .tenants
                .iter()
                .map(|tenant| TenantSettings { prefix: tenant.prefix.to_string(), max_devices: tenant.devices })
                .collect(),
            records_name_users: true,
            time_source: self.ingest.time,
            timezone: self.ingest.timezone.clone(),
            errors_in_proportion: true,
            error_share: self.errors.share(),
            maps: self.ingest.maps_on().map(|map| map.settings.clone()).collect(),
            rules: Settings::RULES,
        }
    }
}
