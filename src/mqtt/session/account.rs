//! What one user or one tenant holds in the broker, and how much it may hold.

mod shared_rate;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Quotas;
pub(crate) use shared_rate::SharedRate;

/// Something that an account holds a bounded amount of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// Open connections.
    Connections,
    /// Sessions, with or without a connection.
    Sessions,
    /// Subscriptions of all sessions.
    Subscriptions,
    /// Levels of the filters of all subscriptions. It has no quota.
    Levels,
    /// Retained messages that the user published last.
    RetainedMessages,
    /// Bytes of these retained messages.
    RetainedBytes,
    /// Bytes of the messages that are queued or unacknowledged in its sessions.
    QueuedBytes,
}

impl Holding {
    const COUNT: usize = 7;
}

/// The account of one user, of all clients without credentials, or of a tenant. What a user holds counts for its tenant too.
///
/// Connections and sessions change under the lock of the sessions, subscriptions under that of the subscriptions, and
/// retained messages under theirs. Queued bytes change under the lock of each session, so their sum may exceed the quota by
/// the messages that are queued at the same moment.
#[derive(Debug)]
pub(crate) struct Account {
    /// Number of the account, never 0 for a client's account.
    pub number: u64,
    /// Name of the user or tenant; `None`: clients without credentials.
    pub name: Option<Arc<str>>,
    /// Account of the user's tenant.
    pub tenant: Option<Arc<Account>>,
    used: [AtomicUsize; Holding::COUNT],
    /// The most that may be used; `usize::MAX`: no bound.
    quotas: [AtomicUsize; Holding::COUNT],
    /// Number of accounts beside this one, itself included, that hold queued bytes: users of the same tenant, or all tenants
    /// and users without a tenant.
    queueing_peers: Arc<AtomicUsize>,
    /// Number of users of this tenant that hold queued bytes.
    queueing_users: Arc<AtomicUsize>,
    /// Rate of publishes on all connections.
    pub rate: SharedRate,
}

impl Account {
    /// An account that holds nothing and has no bounds. `queueing_peers` is shared by the accounts without a tenant.
    pub fn new(
        number: u64,
        name: Option<Arc<str>>,
        tenant: Option<Arc<Account>>,
        queueing_peers: &Arc<AtomicUsize>,
    ) -> Self {
        let queueing_peers = Arc::clone(tenant.as_ref().map_or(queueing_peers, |tenant| &tenant.queueing_users));
        Self {
            number,
            name,
            tenant,
            used: Default::default(),
            quotas: std::array::from_fn(|_| AtomicUsize::new(usize::MAX)),
            queueing_peers,
            queueing_users: Arc::default(),
            rate: SharedRate::default(),
        }
    }

    /// The account of weir itself. It has no bounds and is in no list of accounts.
    pub fn of_weir() -> Arc<Self> {
        Arc::new(Self::new(0, None, None, &Arc::default()))
    }

    /// Sets the quotas. What is held above a lower quota stays.
    pub fn set_quotas(&self, quotas: &Quotas) {
        let all = [
            (Holding::Connections, quotas.connections),
            (Holding::Sessions, quotas.sessions),
            (Holding::Subscriptions, quotas.subscriptions),
            (Holding::RetainedMessages, quotas.retained_messages),
            (Holding::RetainedBytes, quotas.retained_bytes),
            (Holding::QueuedBytes, quotas.queued_bytes),
        ];
        for (holding, quota) in all {
            self.quotas[holding as usize].store(quota.unwrap_or(usize::MAX), Ordering::Relaxed);
        }
        self.rate.set(quotas.publish_rate);
    }

    /// The most of `holding` that the account may have; `None`: no bound.
    pub fn quota(&self, holding: Holding) -> Option<usize> {
        Some(self.quotas[holding as usize].load(Ordering::Relaxed)).filter(|quota| *quota < usize::MAX)
    }

    /// How much of `holding` the account has.
    pub fn used(&self, holding: Holding) -> usize {
        self.used[holding as usize].load(Ordering::Relaxed)
    }

    /// Whether the account has nothing.
    pub fn is_idle(&self) -> bool {
        self.used.iter().all(|used| used.load(Ordering::Relaxed) == 0)
    }

    /// Notes that the account has `more` of `holding`.
    pub fn add(&self, holding: Holding, more: usize) {
        self.used[holding as usize].fetch_add(more, Ordering::Relaxed);
        if let Some(tenant) = &self.tenant {
            tenant.add(holding, more);
        }
    }

    /// Notes that the account has `less` of `holding` than before.
    pub fn remove(&self, holding: Holding, less: usize) {
        self.used[holding as usize].fetch_sub(less, Ordering::Relaxed);
        if let Some(tenant) = &self.tenant {
            tenant.remove(holding, less);
        }
    }

    /// The account whose quota leaves no room for `more` of `holding`: the user's own or the tenant's.
    pub fn full(&self, holding: Holding, more: usize) -> Option<&Account> {
        let quota = self.quotas[holding as usize].load(Ordering::Relaxed);
        if quota < usize::MAX && self.used(holding).saturating_add(more) > quota {
            return Some(self);
        }
        self.tenant.as_ref()?.full(holding, more)
    }

    /// Notes that the queued bytes changed from `before` to `after` in one session.
    pub fn change_queued(&self, before: usize, after: usize) {
        // Wrapping arithmetic: adding the two's complement of a decrease subtracts it.
        let delta = after.wrapping_sub(before);
        let was = self.used[Holding::QueuedBytes as usize].fetch_add(delta, Ordering::Relaxed);
        match (was, was.wrapping_add(delta)) {
            (0, 0) => {}
            (0, _) => drop(self.queueing_peers.fetch_add(1, Ordering::Relaxed)),
            (_, 0) => drop(self.queueing_peers.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        if let Some(tenant) = &self.tenant {
            tenant.change_queued(before, after);
        }
    }

    /// Whether the queued bytes are below an equal share of `budget_bytes`. The budget is divided among the tenants and the
    /// users without a tenant that hold queued bytes; a tenant's part is divided among its users.
    pub fn is_below_share(&self, budget_bytes: usize) -> bool {
        self.queue_share(budget_bytes).is_none_or(|share| self.used(Holding::QueuedBytes) < share)
    }

    /// The share of the queue budget that bounds the account; `None`: its tenant is below the tenant's share.
    fn queue_share(&self, budget_bytes: usize) -> Option<usize> {
        let peers = self.queueing_peers.load(Ordering::Relaxed).max(1);
        match &self.tenant {
            None => Some(budget_bytes / peers),
            Some(tenant) => {
                let share = tenant.queue_share(budget_bytes)?;
                (tenant.used(Holding::QueuedBytes) >= share).then_some(share / peers)
            }
        }
    }

    /// The account that is compared first where users compete: the tenant's, or the user's own without a tenant.
    fn top(&self) -> &Account {
        self.tenant.as_deref().unwrap_or(self)
    }

    /// Order of accounts by what they hold: by tenant first, then by user.
    pub fn weight(&self, holding: Holding) -> (usize, usize) {
        (self.top().used(holding), self.used(holding))
    }

    /// Whether this account would still hold more than `other` after `other` got `more`. Users of different tenants are compared
    /// by their tenants.
    pub fn outweighs(&self, other: &Account, holding: Holding, more: usize) -> bool {
        let (mine, theirs) = if self.top().number == other.top().number {
            (self.used(holding), other.used(holding))
        } else {
            (self.top().used(holding), other.top().used(holding))
        };
        mine > theirs.saturating_add(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> (Account, Account, Account) {
        let peers = Arc::default();
        let tenant = Arc::new(Account::new(1, Some("acme".into()), None, &peers));
        let user = |number, tenant| Account::new(number, Some("u".into()), tenant, &peers);
        (user(2, Some(Arc::clone(&tenant))), user(3, Some(tenant)), user(4, None))
    }

    #[test]
    fn a_tenants_quota_bounds_all_its_users() {
        let (one, two, other) = accounts();
        let tenant = one.tenant.clone().unwrap();
        tenant.set_quotas(&Quotas { sessions: Some(3), ..Quotas::default() });
        one.set_quotas(&Quotas { sessions: Some(2), ..Quotas::default() });
        one.add(Holding::Sessions, 2);
        assert_eq!(one.full(Holding::Sessions, 1).map(|full| full.number), Some(2));
        two.add(Holding::Sessions, 1);
        assert_eq!(two.full(Holding::Sessions, 1).map(|full| full.number), Some(1));
        assert!(other.full(Holding::Sessions, 1_000).is_none());
        one.remove(Holding::Sessions, 1);
        assert!(one.full(Holding::Sessions, 1).is_none() && tenant.used(Holding::Sessions) == 2);
        assert!(!one.is_idle() && other.is_idle());
    }

    #[test]
    fn the_queue_budget_is_shared_by_tenants_then_users() {
        let (one, two, other) = accounts();
        one.change_queued(0, 60);
        assert!(one.is_below_share(100), "nobody else needs room");
        other.change_queued(0, 10);
        assert!(!one.is_below_share(100) && other.is_below_share(100));
        two.change_queued(0, 10);
        assert!(!one.is_below_share(100) && two.is_below_share(100), "half of the tenant's 50 is for the second user");
        other.change_queued(10, 0);
        assert!(one.is_below_share(200), "its tenant is below the tenant's share");
        one.change_queued(60, 0);
        two.change_queued(10, 0);
        assert_eq!(one.tenant.as_ref().unwrap().used(Holding::QueuedBytes), 0);
        assert_eq!(other.queueing_peers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn tenants_are_compared_before_users() {
        let (one, two, other) = accounts();
        one.add(Holding::Sessions, 3);
        two.add(Holding::Sessions, 3);
        other.add(Holding::Sessions, 4);
        assert!(one.outweighs(&other, Holding::Sessions, 1) && !other.outweighs(&one, Holding::Sessions, 0));
        assert!(!one.outweighs(&two, Holding::Sessions, 0) && one.weight(Holding::Sessions) == (6, 3));
        assert!(!one.outweighs(&other, Holding::Sessions, 2));
    }
}
