//! The accounts of all users and tenants: who holds how much, and who holds most.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use crate::config::Tenants;
use crate::mqtt::session::account::{Account, Holding};
use crate::sync::lock;

/// Number of accounts up to which accounts that hold nothing are kept.
const KEPT_IDLE: usize = 1_024;

/// All accounts. Their lock is taken after all others of the broker.
#[derive(Debug)]
pub(super) struct UserAccounts {
    tenants: Tenants,
    all: Mutex<KnownAccounts>,
    queueing: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct KnownAccounts {
    /// Accounts by user name; `None`: clients without credentials. At most twice as many as users that hold something, or
    /// [`KEPT_IDLE`].
    by_user: HashMap<Option<Arc<str>>, Arc<Account>>,
    /// Accounts of the tenants that have or had clients.
    by_tenant: HashMap<Arc<str>, Arc<Account>>,
    last_number: u64,
    /// Number of accounts from which on those that hold nothing are removed.
    clear_at: usize,
}

impl KnownAccounts {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Forgets the users that hold nothing.
    fn clear(&mut self) {
        if self.by_user.len() < self.clear_at {
            return;
        }
        // A session or a connection that refers to the account may still add to it.
        self.by_user.retain(|_, account| Arc::strong_count(account) > 1 || !account.is_idle());
        self.clear_at = KEPT_IDLE.max(self.by_user.len() * 2);
    }
}

impl UserAccounts {
    /// No accounts yet. Users of `tenants` count for their tenant.
    pub fn new(tenants: Tenants) -> Self {
        let (by_user, by_tenant) = Default::default();
        let known = KnownAccounts { by_user, by_tenant, last_number: 0, clear_at: KEPT_IDLE };
        Self { tenants, all: Mutex::new(known), queueing: Arc::default() }
    }

    /// The account of a user; `None`: of all clients without credentials.
    pub fn of(&self, user: Option<&Arc<str>>) -> Arc<Account> {
        let mut known = lock(&self.all);
        let key = user.cloned();
        if let Some(account) = known.by_user.get(&key) {
            return Arc::clone(account);
        }
        known.clear();
        let tenant =
            user.and_then(|user| self.tenants.of_user(user)).map(|tenant| match known.by_tenant.get(&tenant.name) {
                Some(account) => Arc::clone(account),
                None => {
                    let account = Account::new(known.number(), Some(Arc::clone(&tenant.name)), None, &self.queueing);
                    account.set_quotas(&tenant.quotas);
                    let account = Arc::new(account);
                    known.by_tenant.insert(Arc::clone(&tenant.name), Arc::clone(&account));
                    account
                }
            });
        let account = Arc::new(Account::new(known.number(), key.clone(), tenant, &self.queueing));
        known.by_user.insert(key, Arc::clone(&account));
        account
    }

    /// The user that holds most of `holding`: the heaviest user of the heaviest tenant, or the user without a tenant that
    /// outweighs all tenants. With `within`, only users of this tenant are looked at. Looks at all accounts: for a bound that is
    /// reached, not for each message.
    pub fn heaviest(&self, holding: Holding, within: Option<&Account>) -> Option<Arc<Account>> {
        let known = lock(&self.all);
        let tenant = |account: &Account| account.tenant.as_ref().map(|tenant| tenant.number);
        let candidates = known.by_user.values().filter(|account| {
            account.used(holding) > 0 && within.is_none_or(|within| tenant(account) == Some(within.number))
        });
        candidates.max_by_key(|account| account.weight(holding)).map(Arc::clone)
    }

    /// The tenants' accounts and the users' accounts, in no particular order.
    pub fn all(&self) -> (Vec<Arc<Account>>, Vec<Arc<Account>>) {
        let known = lock(&self.all);
        (known.by_tenant.values().map(Arc::clone).collect(), known.by_user.values().map(Arc::clone).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Quotas, Tenant};

    fn accounts() -> UserAccounts {
        let acme = Tenant {
            name: "acme".into(),
            prefix: "acme/".into(),
            users: vec!["acme.*".into()],
            quotas: Quotas { sessions: Some(5), ..Quotas::default() },
            devices: None,
        };
        UserAccounts::new(Tenants::new([acme]))
    }

    #[test]
    fn users_without_anything_are_forgotten() {
        let accounts = accounts();
        let held = accounts.of(Some(&"held".into()));
        accounts.of(Some(&"retained".into())).add(Holding::RetainedMessages, 1);
        for index in 0..3 * KEPT_IDLE {
            accounts.of(Some(&format!("u{index}").into()));
        }
        let known = lock(&accounts.all).by_user.len();
        assert!(known <= KEPT_IDLE + 2, "{known}");
        assert_eq!(accounts.of(Some(&"held".into())).number, held.number);
        assert_eq!(accounts.of(Some(&"retained".into())).used(Holding::RetainedMessages), 1);
    }

    #[test]
    fn the_heaviest_user_is_of_the_heaviest_tenant() {
        let accounts = accounts();
        let of = |user: &str, sessions| {
            let account = accounts.of(Some(&user.into()));
            account.add(Holding::Sessions, sessions);
            account
        };
        let (pump, fan, ada) = (of("acme.pump", 2), of("acme.fan", 3), of("ada", 4));
        let heaviest = |within| accounts.heaviest(Holding::Sessions, within).map(|account| account.number);
        assert_eq!(heaviest(None), Some(fan.number), "the tenant has 5");
        assert_eq!(heaviest(pump.tenant.as_deref()), Some(fan.number));
        ada.add(Holding::Sessions, 2);
        assert_eq!(heaviest(None), Some(ada.number));
        assert_eq!(accounts.heaviest(Holding::Connections, None).map(|account| account.number), None);
        assert!(pump.full(Holding::Sessions, 1).is_some(), "the tenant's quota is reached");
        assert!(accounts.of(None).tenant.is_none());
    }
}
