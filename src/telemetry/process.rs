//! What the operating system says of this process. Reads /proc/self with `std::fs`: that is not weir's data, which
//! only the disk module touches. Elsewhere than on Linux every number is missing.

use std::fs;

use crate::telemetry::names;

/// Numbers of this process; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// Memory in RAM.
    pub resident_bytes: Option<u64>,
    /// User and system CPU time since the start.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Limit of open file descriptors (the soft one); `None` also where there is none.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Process {
    /// Reads them now.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The directory handle that counts is itself one of the descriptors.
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1));
        Self {
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
            cpu_seconds: cpu_seconds(&stat, rustix::param::clock_ticks_per_second()),
            open_fds,
            max_fds: field(&limits, "Max open files"),
            threads: field(&status, "Threads:"),
        }
    }

    /// Hands the gauges to the metrics recorder.
    pub fn record(&self) {
        let gauges = [
            (names::PROCESS_RESIDENT_BYTES, self.resident_bytes),
            (names::PROCESS_OPEN_FDS, self.open_fds),
            (names::PROCESS_MAX_FDS, self.max_fds),
            (names::PROCESS_THREADS, self.threads),
        ];
        for (name, value) in gauges {
            if let Some(value) = value {
                metrics::gauge!(name).set(value as f64);
            }
        }
    }

    /// The lines of the CPU time for a metrics page: the recorder's counters are whole numbers.
    pub fn cpu_lines(&self) -> String {
        let metric = names::ALL.iter().find(|metric| metric.name == names::PROCESS_CPU_SECONDS);
        let (Some(seconds), Some(metric)) = (self.cpu_seconds, metric) else {
            return String::new();
        };
        let (name, help) = (metric.name, metric.help);
        format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {seconds}\n")
    }
}

/// The first number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of /proc/self/stat (proc_pid_stat(5)); counted from the last `)`, since a name may hold anything.
fn cpu_seconds(stat: &str, ticks_per_second: u64) -> Option<f64> {
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = after_name.next()?.parse().ok()?;
    let system: u64 = after_name.next()?.parse().ok()?;
    Some((user + system) as f64 / ticks_per_second.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let status = "Name:\tweir\nVmRSS:\t   20480 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(20480));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmSwap:"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(field(limits, "Max open files"), Some(1024));
        assert_eq!(field("Max open files  unlimited unlimited files", "Max open files"), None);
    }

    #[test]
    fn cpu_time_whatever_the_name() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_seconds(stat, 100), Some(2.0));
        assert_eq!(cpu_seconds("12 (weir) S 1", 100), None);
        assert_eq!(cpu_seconds("", 100), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_numbers() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 0), "{process:?}");
        assert!(process.open_fds.is_some() && process.threads.is_some_and(|threads| threads > 0), "{process:?}");
        assert!(process.cpu_seconds.is_some(), "{process:?}");
        assert!(process.cpu_lines().contains("\nprocess_cpu_seconds_total "), "{}", process.cpu_lines());
    }
}
