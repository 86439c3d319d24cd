//! The steps of a batch.
//!
//! A batch is applied in this order: devices that are silent get their watermark, at the batch's arrival time (`firing`);
//! devices that were silent for too long are forgotten (`lifetime`); each message is decoded, its readings are judged by
//! the watermark before the message and put into windows (`ingest`, `assign`), then the watermark moves and due windows
//! fire (`firing`). After the last record, windows that got late readings fire again, each once, and windows that are
//! closed for good are dropped.
//!
//! The order is part of the results: a replay of the journal must give the same results under the same sequence numbers.

use crate::core::batch::BatchContext;
use crate::core::codec::DecodeError;
use crate::core::decode::DecodedMessage;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::record::{InvalidRecord, Record, RecordDecoder};
use crate::core::settings::Settings;
use crate::core::watermark::NONE_MS;
use crate::defects::{self, Defect};

impl Operator {
    /// Applies one journal batch. `first_lsn` is the position of the first record given, `arrival_ms` the arrival time of
    /// the batch. A batch without records lets time pass.
    ///
    /// # Errors
    /// A record that is not of this format. The records before it are applied, the batch is not finished: the operator
    /// must not be used any further.
    pub fn apply<'a>(
        &mut self,
        first_lsn: u64,
        arrival_ms: i64,
        records: impl Iterator<Item = &'a [u8]>,
        out: &mut impl Collector,
    ) -> Result<(), InvalidRecord> {
        let mut decoder = RecordDecoder::default();
        let mut message = DecodedMessage::default();
        let mut batch = BatchContext::new(first_lsn, arrival_ms);
        let mut begun = false;
        for bytes in records {
            let record = decoder.decode(bytes)?;
            if !begun {
                self.begin_batch(arrival_ms, record == Record::Resumed, out);
                begun = true;
            }
            match record {
                Record::Publish(publish, same_origin) => {
                    self.publish(&mut batch, &mut message, publish, same_origin, out);
                }
                Record::Resumed => self.listen_again(),
                Record::Tick => {}
                Record::Replay(replay) => self.replay(batch.lsn, arrival_ms, &mut message, replay, out),
                Record::Forget(ids) => {
                    // Late readings of this batch are told before their device is forgotten.
                    self.end_batch(&mut batch, out);
                    self.forget_named(ids.iter(), out);
                    batch.forget_devices();
                }
                Record::Settings(json) => {
                    let index = (batch.lsn - first_lsn) as usize;
                    self.change_settings(&mut batch, json, out).map_err(|what| InvalidRecord { index, what })?;
                    batch.forget_origin();
                }
            }
            batch.lsn += 1;
        }
        if !begun {
            self.begin_batch(arrival_ms, false, out);
        }
        self.end_batch(&mut batch, out);
        Ok(())
    }

    fn begin_batch(&mut self, arrival_ms: i64, resumed: bool, out: &mut dyn Collector) {
        let before_ms = self.clocks.journal.now_ms;
        if resumed {
            self.settle_all();
        }
        self.clocks.journal.now_ms = before_ms.max(arrival_ms);
        if before_ms == NONE_MS {
            self.clocks.set_backs.note_gap(self.clocks.journal.now_ms, i64::MAX, 0);
        } else {
            let gap_ms = self.clocks.journal.now_ms.saturating_sub(before_ms);
            let awake_ms = if resumed { 0 } else { gap_ms.min(self.longest_awake_ms()) };
            self.clocks.journal.paused_ms = self.clocks.journal.paused_ms.saturating_add(gap_ms - awake_ms);
            self.clocks.set_backs.note_gap(self.clocks.journal.now_ms, gap_ms, awake_ms);
        }
        if resumed {
            self.clocks.journal.listening_since_ms = self.clocks.journal.now_ms;
        }
        self.fire_idle(out);
        self.end_silent_backlogs(out);
        self.forget_silent(out);
    }

    /// Longest time between two batches that counts against `state.device_ttl`: an eighth of `state.device_ttl`, under rules 0
    /// half of it. On a machine without a battery-backed clock the time may jump by years when it is set. Such jumps must not
    /// make weir forget which messages it has counted.
    fn longest_awake_ms(&self) -> i64 {
        let part = if self.settings.current.has_field_rules() { 8 } else { 2 };
        self.settings.current.device_ttl_ms.map_or(i64::MAX, |ttl_ms| ttl_ms / part)
    }

    /// Applies a `Resumed` record: the silence of every device starts at zero. Silence before the record has already
    /// moved watermarks.
    fn listen_again(&mut self) {
        if self.clocks.journal.listening_since_ms != self.clocks.journal.now_ms {
            self.settle_all();
            self.clocks.journal.listening_since_ms = self.clocks.journal.now_ms;
        }
    }

    /// Processes the records from here on under the settings in `json`. The records before are finished first, under the
    /// old ones.
    fn change_settings(
        &mut self,
        batch: &mut BatchContext<'_>,
        json: &[u8],
        out: &mut impl Collector,
    ) -> Result<(), DecodeError> {
        let mut settings = Settings::from_json(json)?;
        if defects::is(Defect::KeepMapsOfStart) {
            settings.maps.clone_from(&self.settings.current.maps);
        }
        if !self.settings.is_fixed && settings != self.settings.current {
            self.end_batch(batch, out);
            self.reconfigure(settings, out);
        }
        Ok(())
    }

    fn end_batch(&mut self, batch: &mut BatchContext<'_>, out: &mut dyn Collector) {
        self.note_clock(batch);
        batch.stated = None;
        self.fire_touched(out);
        self.drop_expired();
        debug_assert_eq!(self.totals.unaccounted(), 0, "every reading is in a window or rejected");
    }
}
