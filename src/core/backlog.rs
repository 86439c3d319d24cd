//! The backlog of one device: windows behind the watermark that wait for the rest of their readings, and fired windows that
//! are held for corrections while the device catches up.

use std::collections::{BTreeMap, VecDeque};

use crate::core::codec::{DecodeError, FieldReader, put_i64, put_u64};
use crate::core::watermark;
use crate::core::window::Window;

/// Windows that got a reading last and do not fire although the backlog has moved on: where two parts of a backlog come
/// interleaved, the windows of both are among them.
const KEPT_WINDOWS: usize = 16;

/// Series of the device and start of the window.
pub(super) type BacklogKey = (u32, i64);

/// A window of a backlog.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BacklogWindow {
    /// The window.
    pub window: Window,
    /// Number of the touch that created it.
    pub created: u64,
    /// Number of its newest touch.
    pub touched: u64,
}

/// The backlog of one device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Backlog {
    windows: BTreeMap<BacklogKey, BacklogWindow>,
    /// Windows that have not fired, in order of creation.
    waiting: VecDeque<BacklogKey>,
    /// Fired windows that got readings in this batch.
    corrected: Vec<BacklogKey>,
    /// Newest event time that came behind the watermark.
    newest_ms: i64,
    /// Number of windows created in ascending order since a reading last broke the order.
    ascending: u64,
    /// Number of touches so far.
    touches: u64,
    /// When the backlog was last active, in journal time.
    pub active_ms: i64,
    /// How far the watermark was behind the journal when the device was last seen to catch up.
    pub lag_ms: i64,
    /// Time at which the backlog is queued to end, or [`NEVER_MS`](crate::core::device::NEVER_MS).
    pub queued_ms: i64,
}

impl Backlog {
    /// A backlog that begins at `now_ms`.
    pub fn new(now_ms: i64, lag_ms: i64) -> Self {
        Self {
            windows: BTreeMap::new(),
            waiting: VecDeque::new(),
            corrected: Vec::new(),
            newest_ms: watermark::NONE_MS,
            ascending: 0,
            touches: 0,
            active_ms: now_ms,
            lag_ms,
            queued_ms: crate::core::device::NEVER_MS,
        }
    }

    /// Number of windows held.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Number of windows that have not fired.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Windows that have not fired.
    pub fn waiting_keys(&self) -> impl Iterator<Item = BacklogKey> + '_ {
        self.waiting.iter().copied()
    }

    /// The window of a series that holds `time_ms`.
    pub fn find(&self, series: usize, time_ms: i64) -> Option<BacklogKey> {
        let (key, held) = self.windows.range(..=(series as u32, time_ms)).next_back()?;
        (key.0 as usize == series && time_ms < held.window.end_ms).then_some(*key)
    }

    /// The window with this key.
    pub fn get(&self, key: BacklogKey) -> Option<&Window> {
        self.windows.get(&key).map(|held| &held.window)
    }

    /// The window with this key.
    pub fn get_mut(&mut self, key: BacklogKey) -> Option<&mut Window> {
        self.windows.get_mut(&key).map(|held| &mut held.window)
    }

    /// End of the newest window.
    pub fn newest_end_ms(&self) -> Option<i64> {
        self.windows.values().map(|held| held.window.end_ms).max()
    }

    /// The newest fired window of a series.
    pub fn last_fired(&self, series: usize) -> Option<&Window> {
        let all = self.windows.range((series as u32, i64::MIN)..=(series as u32, i64::MAX));
        all.rev().map(|(_, held)| &held.window).find(|window| window.firings > 0)
    }

    /// Adds a value to a window that is there.
    pub fn add(&mut self, key: BacklogKey, value: f64, time_ms: i64, now_ms: i64, out_of_orderness_ms: i64) {
        self.note(time_ms, now_ms, out_of_orderness_ms);
        let touched = self.touches;
        let Some(held) = self.windows.get_mut(&key) else { return };
        held.window.aggregate.add(value, time_ms);
        held.touched = touched;
        if held.window.firings > 0 && !held.window.touched {
            held.window.touched = true;
            self.corrected.push(key);
        }
    }

    /// Adds a window with its first reading, of `time_ms`.
    pub fn create(&mut self, series: usize, window: Window, time_ms: i64, now_ms: i64, out_of_orderness_ms: i64) {
        self.note(time_ms, now_ms, out_of_orderness_ms);
        self.ascending += 1;
        self.waiting.push_back((series as u32, window.start_ms));
        self.put(series, window);
    }

    /// Adds a window that fired as one of live data, and is held for corrections.
    pub fn hold(&mut self, series: usize, window: Window) {
        self.touches += 1;
        self.put(series, window);
    }

    fn put(&mut self, series: usize, window: Window) {
        let held = BacklogWindow { window, created: self.touches, touched: self.touches };
        self.windows.insert((series as u32, window.start_ms), held);
    }

    /// Notes a reading behind the watermark.
    fn note(&mut self, time_ms: i64, now_ms: i64, out_of_orderness_ms: i64) {
        if time_ms < self.newest_ms.saturating_sub(out_of_orderness_ms) {
            self.ascending = 0;
        }
        self.newest_ms = self.newest_ms.max(time_ms);
        self.touches += 1;
        self.active_ms = now_ms;
    }

    /// Windows that fire at the end of a batch: fired ones that were corrected in it, and those that a backlog in ascending
    /// order has moved on past.
    pub fn due(&mut self, out_of_orderness_ms: i64) -> Vec<BacklogKey> {
        let mut due = std::mem::take(&mut self.corrected);
        let passed_ms = watermark::after(self.newest_ms, out_of_orderness_ms);
        while self.ascending > KEPT_WINDOWS as u64
            && self.waiting.len() > KEPT_WINDOWS
            && let Some(&key) = self.waiting.front()
            && self.get(key).is_none_or(|window| window.end_ms.saturating_sub(1) <= passed_ms)
        {
            due.push(key);
            self.waiting.pop_front();
        }
        due
    }

    /// Marks windows that end after `latest_ms` as of a wrong time; returns those of them that have fired.
    pub fn mark_wrong(&mut self, latest_ms: i64) -> Vec<BacklogKey> {
        let wrong = self.windows.iter_mut().filter(|(_, held)| held.window.end_ms > latest_ms);
        let fired = wrong.filter_map(|(&key, held)| {
            held.window.flags.wrong_clock = true;
            (held.window.firings > 0).then_some(key)
        });
        fired.collect()
    }

    /// Drops windows that fired from the list of those that wait.
    pub fn forget_fired(&mut self) {
        let windows = &self.windows;
        self.waiting.retain(|key| windows.get(key).is_some_and(|held| held.window.firings == 0));
    }

    /// Fired windows, least recently touched first, at most `count`.
    pub fn oldest(&self, count: usize, has_fired: bool) -> Vec<BacklogKey> {
        let all =
            self.windows.iter().filter(|(_, held)| (held.window.firings > 0) == has_fired && !held.window.touched);
        let mut by_touch: Vec<(u64, BacklogKey)> = all.map(|(&key, held)| (held.touched, key)).collect();
        by_touch.sort_unstable();
        by_touch.into_iter().take(count).map(|(_, key)| key).collect()
    }

    /// Removes a window.
    pub fn remove(&mut self, key: BacklogKey) -> Option<Window> {
        self.windows.remove(&key).map(|held| held.window)
    }

    /// All windows, in order of series and start.
    pub fn into_windows(self) -> impl Iterator<Item = (usize, Window)> {
        self.windows.into_iter().map(|((series, _), held)| (series as usize, held.window))
    }

    /// Notes that the device has a new series at index `at`.
    pub fn insert_series(&mut self, at: usize) {
        let behind = self.windows.split_off(&(at as u32, i64::MIN));
        self.windows.extend(behind.into_iter().map(|((series, start_ms), held)| ((series + 1, start_ms), held)));
        for key in self.waiting.iter_mut().chain(&mut self.corrected) {
            key.0 += u32::from(key.0 as usize >= at);
        }
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i64(self.newest_ms, out);
        put_u64(self.ascending, out);
        put_u64(self.touches, out);
        put_i64(self.active_ms, out);
        put_i64(self.lag_ms, out);
        put_u64(self.windows.len() as u64, out);
        for (&(series, _), held) in &self.windows {
            put_u64(u64::from(series), out);
            put_u64(held.created, out);
            put_u64(held.touched, out);
            held.window.encode(out);
        }
    }

    /// Reads the stored form. The device has `series` series.
    pub fn decode(reader: &mut FieldReader<'_>, series: usize) -> Result<Self, DecodeError> {
        let mut backlog = Self::new(0, 0);
        backlog.newest_ms = reader.i64()?;
        backlog.ascending = reader.u64()?;
        backlog.touches = reader.u64()?;
        backlog.active_ms = reader.i64()?;
        backlog.lag_ms = reader.i64()?;
        let mut waiting = Vec::new();
        for _ in 0..reader.count()? {
            let index = reader.u32()?;
            let (created, touched) = (reader.u64()?, reader.u64()?);
            let window = Window::decode(reader)?;
            let key = (index, window.start_ms);
            if index as usize >= series || backlog.windows.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Content("windows of a backlog"));
            }
            if window.firings == 0 {
                waiting.push((created, key));
            }
            backlog.windows.insert(key, BacklogWindow { window, created, touched });
        }
        waiting.sort_unstable();
        backlog.waiting = waiting.into_iter().map(|(_, key)| key).collect();
        Ok(backlog)
    }
}
