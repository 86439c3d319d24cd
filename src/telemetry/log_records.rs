//! Records of libraries that log through the crate `log`, such as sled: those from INFO up become lines of weir's log, and one
//! caller at a time can look at all of them.

use std::sync::{Mutex, Once, RwLock};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::sync::{lock, read, write};

/// Looks at a record. It may be called by several threads at a time, and may panic.
pub type RecordObserver = fn(&Record<'_>);

static OBSERVER: RwLock<Option<RecordObserver>> = RwLock::new(None);

/// The logger of the crate `log`.
struct LogRecords;

impl Log for LogRecords {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // A copy: the lock is not held while the observer looks.
        let observer = *read(&OBSERVER);
        if let Some(observer) = observer {
            observer(record);
        }
        // Without a subscriber, as in most commands, tracing would turn its line into another record.
        if !tracing::dispatcher::has_been_set() {
            return;
        }
        let is_sled = record.target().starts_with("sled");
        match record.level() {
            Level::Error if is_sled => tracing::error!(target: "sled", "sled: {}", record.args()),
            Level::Warn if is_sled => tracing::warn!(target: "sled", "sled: {}", record.args()),
            Level::Error => tracing::error!(target: "library", "{}: {}", record.target(), record.args()),
            Level::Warn => tracing::warn!(target: "library", "{}: {}", record.target(), record.args()),
            Level::Info => tracing::info!(target: "library", "{}: {}", record.target(), record.args()),
            // They may hold payloads, which weir never logs.
            Level::Debug | Level::Trace => {}
        }
    }

    fn flush(&self) {}
}

/// Makes weir the logger of the crate `log`, once per process.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A program that uses weir as a library may have a logger of its own.
        let _ = log::set_logger(&LogRecords);
        log::set_max_level(LevelFilter::Info);
    });
}

/// Does some work while `observer` looks at all records of the process, whatever their level. Only one such work is done at a
/// time; others wait.
pub fn observe<T>(observer: RecordObserver, work: impl FnOnce() -> T) -> T {
    static ONE: Mutex<()> = Mutex::new(());
    struct Observed;
    impl Drop for Observed {
        fn drop(&mut self) {
            log::set_max_level(LevelFilter::Info);
            *write(&OBSERVER) = None;
        }
    }
    install();
    let _one = lock(&ONE);
    *write(&OBSERVER) = Some(observer);
    let _observed = Observed;
    log::set_max_level(LevelFilter::Trace);
    work()
}
