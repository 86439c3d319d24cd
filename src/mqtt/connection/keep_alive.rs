//! Keep-alive of a connection, MQTT 5.0 section 3.1.2.10.

use std::time::{Duration, Instant};

/// Time at which the client was last heard, and how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    allowed: Option<Duration>,
    heard: Instant,
}

impl KeepAlive {
    /// Begins to measure at `now`. `keep_alive_s` is the keep-alive interval of the connection; 0 turns keep-alive off.
    /// The client may be silent for one and a half intervals [MQTT-3.1.2-22].
    pub fn new(keep_alive_s: u16, now: Instant) -> Self {
        let allowed = (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1_500));
        Self { allowed, heard: now }
    }

    /// Notes that bytes arrived, or that weir itself was not reading: the interval begins anew.
    #[inline]
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Time at which the connection ends if nothing arrives; `None`: keep-alive is off.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.heard + self.allowed?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_moves_with_what_is_heard() {
        let now = Instant::now();
        let mut keep_alive = KeepAlive::new(10, now);
        assert_eq!(keep_alive.deadline(), Some(now + Duration::from_secs(15)));
        keep_alive.heard(now + Duration::from_secs(3));
        assert_eq!(keep_alive.deadline(), Some(now + Duration::from_secs(18)));
        assert_eq!(KeepAlive::new(0, now).deadline(), None);
    }
}
