//! All roles: the built-in ones and those of the ACL file.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::permissions::Permissions;
use super::role::{AclRole, DASHBOARD_QUOTAS, DEVICE_QUOTAS, NO_QUOTAS};
use crate::access::identity::Identity;
use crate::access::users::{ANONYMOUS_ROLE, DEFAULT_ROLE};
use crate::config::{OnDeniedPublish, Quotas};

/// All roles, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    pub(super) roles: BTreeMap<Box<str>, Arc<AclRole>>,
}

/// Topic on which a bridge of another broker publishes whether it is connected.
const BRIDGE_STATE: &str = "$SYS/broker/connection/+/state";

impl Acl {
    /// Whether there is a role of this name.
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.contains_key(name)
    }

    /// Names of all roles.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(|name| &**name)
    }

    /// The quotas of a client's user: of each quota the largest value of its roles. Without a role that exists, those of a
    /// device.
    pub fn quotas(&self, identity: &Identity) -> Quotas {
        let quotas = identity.roles.iter().filter_map(|name| self.roles.get(name)).map(|role| role.quotas);
        quotas.reduce(Quotas::largest).unwrap_or(DEVICE_QUOTAS)
    }

    /// The permissions of a client. A role that does not exist allows nothing.
    pub fn permissions(&self, identity: &Identity, client_id: Arc<str>, on_denied: OnDeniedPublish) -> Permissions {
        let roles = identity.roles.iter().filter_map(|name| self.roles.get(name)).map(Arc::clone).collect();
        Permissions::new(roles, identity.user.clone(), client_id, on_denied)
    }
}

impl Default for Acl {
    /// The built-in roles.
    fn default() -> Self {
        let everything = ["#", "$SYS/#"];
        let roles = [
            (DEFAULT_ROLE, AclRole::built_in(&["devices/%u/#"], &["devices/%u/commands/#"], false, DEVICE_QUOTAS)),
            ("dashboard", AclRole::built_in(&[], &everything, false, DASHBOARD_QUOTAS)),
            ("bridge", AclRole::built_in(&["#", BRIDGE_STATE], &everything, true, NO_QUOTAS)),
            (ANONYMOUS_ROLE, AclRole::built_in(&["#", BRIDGE_STATE], &everything, true, NO_QUOTAS)),
        ];
        Self { roles: roles.into_iter().map(|(name, role)| (name.into(), Arc::new(role))).collect() }
    }
}
