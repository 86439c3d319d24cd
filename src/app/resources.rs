//! Limits of the operating system that are raised at start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors for logs, the state store, listeners and HTTP, in addition to MQTT connections.
const OTHER_DESCRIPTORS: u64 = 256;

/// Raises the soft limit of open files to the hard limit, and warns if that is too low for `max_connections`.
pub fn raise_open_files(max_connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // systemd's LimitNOFILE sets both limits, and the unit's system call filter may forbid setrlimit.
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let wanted = max_connections as u64 + OTHER_DESCRIPTORS;
    if let Some(current) = getrlimit(Resource::Nofile).current
        && current < wanted
    {
        tracing::warn!(
            current,
            wanted,
            "the limit of open files is too low for mqtt.max_connections: raise LimitNOFILE or `ulimit -n`"
        );
    }
}
