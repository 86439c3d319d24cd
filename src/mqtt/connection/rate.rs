//! Limits how fast one client may send: token buckets that hold one second's worth. Nothing is dropped beyond the
//! limit: the socket is read later, and the client's own sending slows down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::config::RatesConfig;
use crate::mqtt::broker::meters::LimitedRate;
use crate::mqtt::session::account::{Account, SharedRate};
use crate::mqtt::wire::frame;
use crate::sync::lock;
use crate::token_bucket::TokenBucket;

/// Shortest wait of a client that exceeded its rate. So its socket is read ten times a second at most, not once for
/// each message.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Rates that are in force. They may change while weir runs.
#[derive(Debug)]
pub(crate) struct RateLimits {
    rates: Mutex<RatesConfig>,
    version: AtomicU64,
}

impl RateLimits {
    /// Puts `rates` in force.
    pub fn new(rates: RatesConfig) -> Self {
        Self { rates: Mutex::new(rates), version: AtomicU64::new(1) }
    }

    /// Puts other rates in force, also for connections that are open.
    pub fn set(&self, rates: RatesConfig) {
        *lock(&self.rates) = rates;
        self.note_change();
    }

    /// Notes that rates of users may have changed.
    pub fn note_change(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Version of the rates. It changes with each [`RateLimits::set`] and [`RateLimits::note_change`].
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn get(&self) -> RatesConfig {
        *lock(&self.rates)
    }
}

/// Token buckets of one client.
#[derive(Debug)]
pub(crate) struct ClientRate {
    messages: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
    /// Account whose rate, or whose tenant's rate, all connections of the user share; `None`: neither has a rate.
    account: Option<Arc<Account>>,
    /// Whether the client has to wait.
    paused: bool,
}

/// A pause: the socket of a client that exceeded its rate is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateWait {
    /// Time at which the pause ends.
    pub until: Instant,
    /// Rate that the client exceeded.
    pub limit: LimitedRate,
    /// Whether the pause has only begun.
    pub begins: bool,
}

impl ClientRate {
    /// Makes full buckets for the rates in force; `None` where no rate is limited. `account` is the account of the client's user.
    pub fn new(limits: &RateLimits, account: &Arc<Account>, now: Instant) -> Option<Box<Self>> {
        let rates = limits.get();
        let messages = rates.messages_per_second.map(|rate| TokenBucket::full(u64::from(rate), now));
        let bytes = rates.bytes_per_second.map(|rate| TokenBucket::full(rate, now));
        let account = shared_rates(account).any(|rate| rate.get().is_some()).then(|| Arc::clone(account));
        let limited = messages.is_some() || bytes.is_some() || account.is_some();
        limited.then(|| Box::new(Self { messages, bytes, account, paused: false }))
    }

    /// Whether packets of this type count as messages. Acknowledgements do not count: they answer messages that weir
    /// itself sent.
    #[inline]
    pub fn counts(kind: u8) -> bool {
        matches!(kind, frame::PUBLISH | frame::SUBSCRIBE | frame::UNSUBSCRIBE)
    }

    /// Number of messages that may be taken now.
    pub fn messages(&self, now: Instant) -> usize {
        let own = self.messages.as_ref().map_or(u64::MAX, |bucket| bucket.tokens(now));
        let shared = self.account.iter().flat_map(shared_rates).map(|rate| rate.tokens(now)).min();
        let budget = own.min(shared.unwrap_or(u64::MAX));
        usize::try_from(budget).unwrap_or(usize::MAX)
    }

    /// Number of bytes that may be read now.
    pub fn bytes(&self, now: Instant) -> usize {
        let budget = self.bytes.as_ref().map_or(u64::MAX, |bucket| bucket.tokens(now));
        usize::try_from(budget).unwrap_or(usize::MAX)
    }

    /// Notes that `count` messages were taken.
    pub fn took_messages(&mut self, count: usize, now: Instant) {
        if let Some(bucket) = &mut self.messages {
            bucket.take(count as u64, now);
        }
        self.account.iter().flat_map(shared_rates).for_each(|rate| rate.take(count as u64, now));
    }

    /// Notes that `count` bytes were read.
    pub fn took_bytes(&mut self, count: usize, now: Instant) {
        if let Some(bucket) = &mut self.bytes {
            bucket.take(count as u64, now);
        }
    }

    /// Returns the pause if the socket must not be read now. A pause lasts until the bucket has refilled for at least
    /// [`SHORTEST_PAUSE`], so that there are tokens for some messages and not for one.
    pub fn wait(&mut self, now: Instant) -> Option<RateWait> {
        let paused = self.paused;
        let resumes = |bucket: &TokenBucket| {
            Some(bucket.refilled(SHORTEST_PAUSE)).filter(|at| if paused { *at > now } else { bucket.tokens(now) == 0 })
        };
        let own = [
            (self.messages.as_ref().and_then(resumes), LimitedRate::Messages),
            (self.bytes.as_ref().and_then(resumes), LimitedRate::Bytes),
        ];
        let shared = self.account.iter().flat_map(shared_rates);
        let shared = shared.map(|rate| (rate.refilled(SHORTEST_PAUSE, now), LimitedRate::User));
        let waits = own.into_iter().chain(shared).filter_map(|(until, limit)| Some((until?, limit)));
        let longest = waits.max_by_key(|(until, _)| *until);
        self.paused = longest.is_some();
        longest.map(|(until, limit)| RateWait { until, limit, begins: !paused })
    }

    /// Whether the client has to wait.
    pub fn is_paused(&self) -> bool {
        self.paused
    }
}

/// The rates that the connections of a user share: the user's and its tenant's.
fn shared_rates(account: &Arc<Account>) -> impl Iterator<Item = &SharedRate> {
    [Some(account), account.tenant.as_ref()].into_iter().flatten().map(|account| &account.rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Quotas;

    fn pace(messages: Option<u32>, bytes: Option<u64>, now: Instant) -> ClientRate {
        let rates = RatesConfig { messages_per_second: messages, bytes_per_second: bytes };
        *ClientRate::new(&RateLimits::new(rates), &Account::of_weir(), now).expect("limited")
    }

    #[test]
    fn a_seconds_worth_comes_at_once_and_then_at_the_rate() {
        let start = Instant::now();
        let mut pace = pace(Some(100), None, start);
        assert_eq!((pace.messages(start), pace.bytes(start), pace.wait(start)), (100, usize::MAX, None));
        pace.took_messages(100, start);
        let wait = pace.wait(start).expect("it is empty");
        assert_eq!(wait, RateWait { until: start + SHORTEST_PAUSE, limit: LimitedRate::Messages, begins: true });
        let between = pace.wait(start + SHORTEST_PAUSE / 2).expect("a message could come, but some are waited for");
        assert!(between == RateWait { begins: false, ..wait } && pace.is_paused());
        assert_eq!((pace.messages(wait.until), pace.wait(wait.until)), (10, None));
        assert!(!pace.is_paused());
        assert_eq!(pace.messages(start + Duration::from_secs(100)), 100, "silence saves a second's worth at most");
    }

    #[test]
    fn a_slow_rate_lets_one_through_at_a_time() {
        let start = Instant::now();
        let mut pace = pace(Some(1), None, start);
        pace.took_messages(1, start);
        let until = pace.wait(start).expect("it is empty").until;
        assert_eq!((until - start, pace.messages(until)), (Duration::from_secs(1), 1));
    }

    #[test]
    fn what_was_too_much_is_paid_for_later() {
        let start = Instant::now();
        let mut pace = pace(None, Some(1_000), start);
        pace.took_bytes(3_000, start);
        let until = pace.wait(start).expect("it is empty").until;
        assert_eq!(until - start, Duration::from_millis(2_100));
        assert_eq!(pace.bytes(until), 100);
    }

    #[test]
    fn the_slower_of_two_decides() {
        let start = Instant::now();
        let mut pace = pace(Some(10), Some(1_000), start);
        pace.took_messages(10, start);
        pace.took_bytes(5_000, start);
        let wait = pace.wait(start).expect("both are empty");
        assert!(wait.until > start + Duration::from_secs(3) && wait.limit == LimitedRate::Bytes, "{wait:?}");
    }

    #[test]
    fn connections_of_a_user_share_its_rate() {
        let (start, account) = (Instant::now(), Account::of_weir());
        let limits = RateLimits::new(RatesConfig::default());
        account.set_quotas(&Quotas { publish_rate: Some(100), ..Quotas::default() });
        let [mut one, mut two] = [(); 2].map(|()| *ClientRate::new(&limits, &account, start).expect("limited"));
        assert_eq!((one.messages(start), one.bytes(start)), (100, usize::MAX));
        one.took_messages(100, start);
        assert_eq!(two.messages(start), 0);
        let wait = two.wait(start).expect("the other connection took all");
        assert_eq!(wait, RateWait { until: start + SHORTEST_PAUSE, limit: LimitedRate::User, begins: true });
        assert_eq!((two.messages(wait.until), two.wait(wait.until)), (10, None));
        account.set_quotas(&Quotas::default());
        assert!(ClientRate::new(&limits, &account, start).is_none() && one.wait(start).is_none());
    }

    #[test]
    fn rates_change_while_connections_are_open() {
        let limits = RateLimits::new(RatesConfig::default());
        assert!(ClientRate::new(&limits, &Account::of_weir(), Instant::now()).is_none());
        let before = limits.version();
        limits.set(RatesConfig { messages_per_second: Some(1), bytes_per_second: None });
        assert!(limits.version() > before && ClientRate::new(&limits, &Account::of_weir(), Instant::now()).is_some());
    }
}
