//! Between a connection and the journal: appends, the wait for room, and the wake-up for acknowledgements that appends
//! of other connections release.

use std::task::{Context, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{BlockedAppend, Connection, FALLBACK, PollStep};
use crate::log::{AppendError, Records};
use crate::mqtt::broker::meters::MqttLimit;
use crate::mqtt::wire::close::CloseReason;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Appends the publishes that wait for room in the journal, if there are any.
    ///
    /// # Errors
    /// The connection ends, see [`Connection::append`].
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Result<PollStep, CloseReason> {
        const ATTEMPTS: usize = 3;
        for _ in 0..ATTEMPTS {
            let Some(BlockedAppend { records, since }) = self.blocked.take() else { return Ok(PollStep::Ready) };
            self.append(context.waker(), records, Some(since), since)?;
            if self.blocked.is_none() {
                // weir was not reading, so the silence does not count as the client's.
                self.protocol.heard(self.shared.now());
                return Ok(PollStep::Ready);
            }
            if self.shared.journal.poll_room(context).is_pending() {
                return Ok(PollStep::Waiting);
            }
        }
        // The journal has room, but not enough for these records.
        self.wake_after(context, FALLBACK);
        Ok(PollStep::Waiting)
    }

    /// Appends `records`, which were read at `read_at`. If the journal has no room, keeps them in `blocked`. Returns
    /// the emptied `records` if they were appended, else new ones. `waiting_since` is the time since which the records
    /// wait for room; `None`: they were just read.
    ///
    /// # Errors
    /// Another connection owns the session, the client may no longer connect, the journal takes nothing more, or the
    /// records are larger than one append may be.
    pub(super) fn append(
        &mut self,
        waker: &Waker,
        mut records: Records,
        waiting_since: Option<Instant>,
        read_at: Instant,
    ) -> Result<Records, CloseReason> {
        let mut until = None;
        if !records.is_empty() {
            let waits = self.protocol.acks().has_unsealed();
            let appended = {
                // The append happens under the session's lock: once a newer connection owns the session, no publish of
                // this connection may follow in the journal. The client repeats its publishes on the newer connection,
                // and the repetition would stand in the journal before the publish that it repeats.
                let Some(_own) = self.session.own(self.id) else { return Err(self.session.lost(self.id)) };
                self.shared.journal.append(&records, waits.then_some(waker), waiting_since, self.shared.now())
            };
            match appended {
                Ok(lsn) => {
                    until = Some(lsn);
                    if waits {
                        self.own_appends = lsn;
                    }
                }
                Err(AppendError::Full) => {
                    self.blocked = Some(BlockedAppend { records, since: waiting_since.unwrap_or(read_at) });
                    return Ok(Records::default());
                }
                Err(AppendError::Closed) => return Err(CloseReason::Journal),
                Err(AppendError::TooLarge { .. }) => {
                    // A configuration in which this can happen is refused.
                    self.shared.meters.limit(MqttLimit::JournalRecord);
                    return Err(CloseReason::Quota);
                }
            }
        }
        records.clear();
        let (fresh, last) = self.protocol.appended(until, read_at);
        if !fresh.is_empty() {
            self.session.hold(self.id, fresh, last);
        }
        self.protocol.begin_append();
        Ok(records)
    }

    /// Wakes the connection also for acknowledgements that wait for the append of another connection, since the journal
    /// wakes a connection only for its own appends. A QoS 2 publish that is repeated after a take-over waits for the
    /// append of the previous connection.
    ///
    /// # Errors
    /// None; the return type is that of the other steps.
    pub(super) fn watch_acks(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        if let Some(position) = self.protocol.acks().waits_for() {
            if position <= self.shared.journal.durable() {
                context.waker().wake_by_ref();
            } else if position > self.own_appends {
                self.wake_after(context, FALLBACK);
            }
        }
        Ok(())
    }
}
