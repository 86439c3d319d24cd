//! Metrics of this process: memory, CPU time, file descriptors and threads, as the operating system counts them. A
//! number that the system does not tell is missing on the page.

use metrics_process::collector;

use crate::telemetry::names;

/// Hands the gauges to the metrics recorder, and returns the lines of the CPU time for the metrics page: the recorder's
/// counters are whole numbers, and CPU time is a fraction of seconds.
pub fn record() -> String {
    let process = collector::collect();
    let gauges = [
        (names::PROCESS_RESIDENT_BYTES, process.resident_memory_bytes),
        (names::PROCESS_OPEN_FDS, process.open_fds),
        // 0 stands for "unlimited".
        (names::PROCESS_MAX_FDS, process.max_fds.filter(|limit| *limit > 0)),
        (names::PROCESS_THREADS, process.threads),
    ];
    for (name, value) in gauges {
        if let Some(value) = value {
            metrics::gauge!(name).set(value as f64);
        }
    }
    process.cpu_seconds_total.map(cpu_lines).unwrap_or_default()
}

fn cpu_lines(seconds: f64) -> String {
    let name = names::PROCESS_CPU_SECONDS;
    let help = names::ALL.iter().find(|metric| metric.name == name).map_or("", |metric| metric.help);
    format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {seconds}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_keeps_its_fractions() {
        let lines = cpu_lines(1.25);
        assert!(lines.starts_with("# HELP process_cpu_seconds_total User and system CPU time.\n"), "{lines}");
        assert!(
            lines.ends_with("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1.25\n"),
            "{lines}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_numbers() {
        let process = collector::collect();
        assert!(process.resident_memory_bytes.is_some_and(|bytes| bytes > 0), "{process:?}");
        assert!(process.open_fds.is_some() && process.threads.is_some_and(|threads| threads > 0), "{process:?}");
        assert!(record().contains("\nprocess_cpu_seconds_total "));
    }
}
