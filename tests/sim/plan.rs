//! Choices of a seed that hold for a whole simulation: settings, sizes and fault rates.

use std::path::PathBuf;
use std::time::Duration;

use weir::config::{IngestConfig, KnownMap, MapOrigin, MapState, MqttConfig};
use weir::core::settings::{Settings, WatermarkScope};
use weir::log::{Keep, LogOptions, Retention, SyncPolicy};
use weir::pipeline::savepoints::SavepointPolicy;
use weir::state::savepoint;

use super::language;

use weir::random::Random;

/// Directory of everything weir writes.
pub const DATA_DIR: &str = "data";

/// Time for which nothing is deleted by age after a jump of the clock: longer than any simulation.
pub const CLOCK_JUMP_HOLD: Duration = Duration::from_secs(24 * 3_600);
/// How far the clock may be behind the journal before journal time is set back: the default of `node.clock_tolerance`.
pub const CLOCK_TOLERANCE_MS: i64 = 60_000;
/// Age at which results are deleted, where it deletes any: no simulation lasts so long, so only a jump of the clock reaches it.
/// A clock that is less than an hour ahead has not jumped; the rest is for what such a clock does.
const RESULTS_AGE_MS: i64 = 110 * 60_000;

/// Window sizes of seeds whose size changes at starts. All have borders in common.
const SIZES_MS: [i64; 3] = [1_000, 5_000, 10_000];

/// Fault rates: one fault in this many actions on average; 0 for never.
#[derive(Debug, Clone, Copy)]
pub struct FaultRates {
    pub power_cut: u64,
    pub kill: u64,
    pub io_failure: u64,
    pub full_disk: u64,
    pub clock_jump: u64,
    pub break_off: u64,
    /// Counted in restarts instead of actions.
    pub decay: u64,
}

/// The constants of one simulation.
#[derive(Debug)]
pub struct SimPlan {
    pub settings: Settings,
    pub mqtt: MqttConfig,
    pub ingest: IngestConfig,
    pub keep: Keep,
    /// The same for the results.
    pub keep_results: Keep,
    pub segment_bytes: u64,
    pub tail_bytes: usize,
    pub min_free_bytes: u64,
    pub checkpoint_interval: Duration,
    pub savepoints: SavepointPolicy,
    pub rates: FaultRates,
    /// The clock of the box is wrong by hours, days and years at times.
    pub clock_lies: bool,
    /// The window size may change at each start.
    pub resizes: bool,
    /// The maps may change at each start.
    pub remaps: bool,
    /// Duration of a sync.
    pub sync_ms: u64,
    pub clients: usize,
    pub actions: u64,
}

impl SimPlan {
    pub fn new(random: &mut Random) -> Self {
        let settings = settings(random);
        let mqtt = MqttConfig {
            max_packet_size_bytes: 16 * 1024,
            max_inflight: *random.pick(&[10, 40, 1_000]),
            ..MqttConfig::default()
        };
        let on = |settings| KnownMap { settings, origin: MapOrigin::Config, state: MapState::On };
        let ingest = IngestConfig {
            telemetry_topics: settings.telemetry_topics.clone(),
            maps: settings.maps.iter().cloned().map(on).collect(),
            ..IngestConfig::default()
        };
        // The model tells the windows of a series by their sizes where these change.
        let resizes = random.one_in(4);
        let savepoints = SavepointPolicy {
            directory: PathBuf::from(DATA_DIR).join(savepoint::DIRECTORY),
            interval: (!random.one_in(5)).then(|| Duration::from_secs(1 + random.below(40))),
            kept: 1 + random.index(3),
            max_journal_bytes: 4_096 << random.below(5),
        };
        Self {
            mqtt,
            ingest,
            keep: if random.one_in(2) { Keep::UpToBytes } else { Keep::Released },
            keep_results: if random.one_in(2) { Keep::ForAge(RESULTS_AGE_MS) } else { Keep::UpToBytes },
            segment_bytes: 1_024 << random.below(6),
            tail_bytes: if random.one_in(2) { 0 } else { 8_192 },
            min_free_bytes: if random.one_in(2) { 0 } else { 24_576 },
            checkpoint_interval: Duration::from_millis(*random.pick(&[0, 200, 1_000, 5_000, 20_000])),
            savepoints,
            rates: FaultRates::new(random),
            clock_lies: random.one_in(4),
            resizes,
            remaps: !resizes && random.one_in(3),
            sync_ms: *random.pick(&[0, 0, 0, 1, 5, 100, 2_000]),
            clients: 1 + random.index(6),
            actions: 400 + random.below(2_600),
            settings,
        }
    }

    /// The settings of the next start.
    pub fn next_settings(&self, random: &mut Random) -> Settings {
        let window_ms = if self.resizes { *random.pick(&SIZES_MS) } else { self.settings.window_ms };
        let is_second = self.remaps && random.one_in(2);
        Settings { window_ms, maps: language::maps(is_second), ..self.settings.clone() }
    }

    /// Smallest and largest window size.
    pub fn sizes_ms(&self) -> (i64, i64) {
        if self.resizes {
            (SIZES_MS[0], SIZES_MS[SIZES_MS.len() - 1])
        } else {
            (self.settings.window_ms, self.settings.window_ms)
        }
    }

    pub fn log(&self, name: &'static str) -> LogOptions {
        let is_journal = name == "journal";
        LogOptions {
            name,
            dir: PathBuf::from(DATA_DIR).join(name),
            segment_bytes: self.segment_bytes,
            // What one journal batch gives is appended to the output logs at once.
            commit_max_bytes: if is_journal { 32 * 1024 } else { 1024 * 1024 },
            queue_max_bytes: if is_journal { 64 * 1024 } else { 1024 * 1024 },
            tail_max_bytes: self.tail_bytes,
            sync: if is_journal { SyncPolicy::EveryCommit } else { SyncPolicy::OnRequest },
            min_free_bytes: if is_journal { self.min_free_bytes } else { self.min_free_bytes / 2 },
            retention: Retention { keep: if is_journal { self.keep } else { self.keep_results }, max_bytes: None },
            clock_tolerance_ms: CLOCK_TOLERANCE_MS,
        }
    }
}

impl FaultRates {
    fn new(random: &mut Random) -> Self {
        // Some seeds have only few kinds of faults, so that each kind also occurs without the others.
        let calm = random.one_in(4);
        let mut rate = |of: &[u64]| if calm && random.one_in(2) { 0 } else { *random.pick(of) };
        Self {
            power_cut: rate(&[0, 100, 300, 300, 800]),
            kill: rate(&[0, 400, 1_000]),
            io_failure: rate(&[0, 0, 300, 800]),
            full_disk: rate(&[0, 0, 500]),
            clock_jump: rate(&[0, 200, 600]),
            break_off: rate(&[0, 40, 120, 400]),
            decay: rate(&[0, 2, 4]),
        }
    }
}

fn settings(random: &mut Random) -> Settings {
    Settings {
        telemetry_topics: vec!["devices/+/telemetry".into(), "plant/telemetry".into()],
        window_ms: *random.pick(&[1_000, 5_000, 5_000, 10_000]),
        watermark: if random.one_in(4) { WatermarkScope::Global } else { WatermarkScope::Device },
        out_of_orderness_ms: *random.pick(&[0, 2_000, 2_000]),
        allowed_lateness_ms: *random.pick(&[0, 5_000, 30_000]),
        store_duplicates: random.one_in(4),
        maps: language::maps(false),
        ..Settings::default()
    }
}
