//! Keep-alive of a connection, MQTT 5.0 section 3.1.2.10.

use std::time::{Duration, Instant};

/// Time from the first look at a socket of a silent client to the second. A runtime that has many sockets to serve may learn
/// only at its next turn that bytes lie in this one.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// Time at which the client was last heard, and how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    allowed: Option<Duration>,
    heard: Instant,
    /// When the socket is tried again, after it was found empty once after the deadline.
    look_again: Option<Instant>,
}

/// What [`KeepAlive::judge`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The client may be silent until then; `None`: for ever.
    AllowedUntil(Option<Instant>),
    /// The client was silent for too long.
    TooLong,
}

impl KeepAlive {
    /// Begins to measure at `now`. `keep_alive_s` is the keep-alive interval of the connection; 0 turns keep-alive off.
    /// The client may be silent for one and a half intervals [MQTT-3.1.2-22].
    pub fn new(keep_alive_s: u16, now: Instant) -> Self {
        let allowed = (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1_500));
        Self { allowed, heard: now, look_again: None }
    }

    /// Notes that bytes arrived, or that weir itself was not reading: the interval begins anew.
    #[inline]
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.look_again = None;
    }

    /// Time at which the silence of the client is judged if nothing arrives; `None`: keep-alive is off.
    pub fn deadline(&self) -> Option<Instant> {
        let allowed = self.allowed?;
        Some(self.look_again.unwrap_or(self.heard + allowed))
    }

    /// Judges a client whose socket was just found empty. The interval begins anew where the process stood still until
    /// `stalled_until`. A client is silent for too long only if its socket is found empty twice after the deadline.
    pub fn judge(&mut self, now: Instant, stalled_until: Option<Instant>) -> Silence {
        if let Some(until) = stalled_until.filter(|until| *until > self.heard) {
            self.heard(until);
        }
        match self.deadline() {
            Some(at) if at <= now && self.look_again.is_some() => Silence::TooLong,
            Some(at) if at <= now => {
                self.look_again = Some(now + SECOND_LOOK);
                Silence::AllowedUntil(self.look_again)
            }
            at => Silence::AllowedUntil(at),
        }
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

    #[test]
    fn a_socket_is_found_empty_twice_before_its_client_is_gone() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut keep_alive = KeepAlive::new(10, start);
        assert_eq!(keep_alive.judge(after(14_999), None), Silence::AllowedUntil(Some(after(15_000))));
        assert_eq!(keep_alive.judge(after(15_000), None), Silence::AllowedUntil(Some(after(15_100))));
        assert_eq!(keep_alive.judge(after(15_099), None), Silence::AllowedUntil(Some(after(15_100))));
        assert_eq!(keep_alive.judge(after(15_100), None), Silence::TooLong);
        keep_alive.heard(after(15_100));
        assert_eq!(keep_alive.judge(after(30_100), None), Silence::AllowedUntil(Some(after(30_200))));
    }

    #[test]
    fn a_stall_of_the_process_is_no_silence_of_the_client() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut keep_alive = KeepAlive::new(10, start);
        keep_alive.judge(after(15_000), None);
        let next = Silence::AllowedUntil(Some(after(55_000)));
        assert_eq!(keep_alive.judge(after(40_000), Some(after(40_000))), next);
        assert_eq!(keep_alive.judge(after(41_000), Some(after(40_000))), next);
        keep_alive.heard(after(50_000));
        assert_eq!(keep_alive.deadline(), Some(after(65_000)), "an older stall does not count");
        assert_eq!(keep_alive.judge(after(51_000), Some(after(40_000))), Silence::AllowedUntil(Some(after(65_000))));
    }
}
