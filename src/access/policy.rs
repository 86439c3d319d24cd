//! The access policy: users, roles and settings that decide about logins, read from the files of the configuration.
//!
//! A policy is a value. It is loaded completely, or refused with all its faults, and then replaces the previous one (see
//! [`super::Access`]). Open connections are judged anew with [`Policy::renew`].

use std::path::Path;
use std::sync::Arc;

use super::acl::{Acl, MapTopics, Permissions};
use super::identity::Identity;
use super::identity::Proof;
use super::secret_file;
use super::users::{ANONYMOUS_ROLE, Users, default_roles};
use crate::config::{Config, ConfigErrors, ConfigFault, ConfigOrigin, ConfigProblem, OnDeniedPublish, Quotas, Tenants};
use crate::core::formats::{MapSettings, Maps};
use crate::tls::RevokedCertificates;

/// Everything that decides about logins and permissions.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The users file; `None`: none is configured.
    pub users: Option<Users>,
    /// Whether clients may connect without credentials.
    pub allow_anonymous: bool,
    /// The roles with their rules.
    pub acl: Acl,
    /// The tenants. They change with a restart only.
    pub tenants: Tenants,
    /// The topics of devices that maps read. They change with a restart only.
    pub map_topics: MapTopics,
    /// What happens to a denied publish of an MQTT 3.1.1 client.
    pub on_denied_publish: OnDeniedPublish,
    /// Client certificates that are refused. They come from the files of the TLS listener, so [`Policy::load`] leaves them
    /// empty, and [`super::Access`] carries them over from policy to policy.
    pub revoked: RevokedCertificates,
    /// Warnings for the operator, such as a file that every user of the machine may read.
    pub warnings: Vec<String>,
}

impl Policy {
    /// Reads the files that the configuration names. It changes nothing, and may be called at any time.
    ///
    /// # Errors
    /// A file cannot be read or has faults. The error holds all faults of all files, each with its line.
    pub fn load(config: &Config) -> Result<Self, ConfigErrors> {
        let auth = &config.mqtt.auth;
        let (allow_anonymous, on_denied_publish) = (config.mqtt.allows_anonymous(), auth.on_denied_publish);
        let tenants = config.tenants.clone();
        let maps: Vec<MapSettings> = config.ingest.maps_on().map(|map| map.settings.clone()).collect();
        // The configuration refuses maps with faults.
        let map_topics = MapTopics(Arc::new(Maps::new(&maps).unwrap_or_default()));
        let mut policy = Self { allow_anonymous, on_denied_publish, tenants, map_topics, ..Self::default() };
        let mut faults = Vec::new();
        let acl_is_known = match auth.acl.as_deref().map_or_else(|| Ok(Acl::default()), Acl::load) {
            Ok(acl) => {
                policy.acl = acl;
                true
            }
            Err(found) => {
                faults.extend(found);
                false
            }
        };
        if let Some(path) = &auth.users {
            match load_users(path) {
                Ok(users) => {
                    if acl_is_known {
                        faults.extend(unknown_roles(path, &users, &policy.acl));
                    }
                    policy.users = Some(users);
                }
                Err(found) => faults.extend(found),
            }
            policy.warnings.extend(secret_file::world_readable(path));
        }
        if faults.is_empty() { Ok(policy) } else { Err(ConfigErrors(faults)) }
    }

    /// A policy without files: every client may connect, or only clients with a certificate.
    pub fn without_users(allow_anonymous: bool) -> Self {
        Self { allow_anonymous, ..Self::default() }
    }

    /// The permissions of a client with this identity.
    pub fn permissions(&self, identity: &Identity, client_id: Arc<str>) -> Permissions {
        self.acl
            .permissions(identity, client_id, self.on_denied_publish)
            .within(&self.tenants)
            .with_map_topics(&self.map_topics)
    }

    /// What the user of a client with this identity may hold.
    pub fn quotas(&self, identity: &Identity) -> Quotas {
        self.acl.quotas(identity)
    }

    /// The identity of a stored session whose client cannot log in with its old proof any more, but may return with another
    /// password or certificate. `None`: the user is gone, and with it the session.
    pub fn identity_of(&self, user: &Arc<str>, proof: &Proof) -> Option<Identity> {
        if matches!(proof, Proof::Certificate(_)) {
            return Some(self.certified(user));
        }
        let (name, user) = self.users.as_ref()?.get(user)?;
        Some(Identity { user: Some(Arc::clone(name)), roles: Arc::clone(&user.roles) })
    }

    /// The identity of an open connection under this policy. `None`: the client could not log in any more, because its user
    /// is gone or has another password, its certificate is revoked, or anonymous clients are not allowed.
    pub fn renew(&self, identity: &Identity, proof: &Proof) -> Option<Identity> {
        match (&identity.user, proof) {
            (None, _) => self.anonymous(),
            (Some(user), Proof::None) => self.identity_of(user, proof),
            (Some(user), Proof::Certificate(shown)) => {
                let is_revoked = shown.as_ref().is_some_and(|shown| self.revoked.contains(shown));
                (!is_revoked).then(|| self.certified(user))
            }
            (Some(user), Proof::Password(before)) => {
                let (_, now) = self.users.as_ref()?.get(user)?;
                (now.password == *before)
                    .then(|| Identity { user: Some(Arc::clone(user)), roles: Arc::clone(&now.roles) })
            }
        }
    }

    /// The identity of a client without credentials; `None`: such clients are not allowed.
    pub fn anonymous(&self) -> Option<Identity> {
        self.allow_anonymous.then(|| Identity { user: None, roles: Arc::new([ANONYMOUS_ROLE.into()]) })
    }

    /// The identity of a user that a certificate names. The users file may give it roles; a user that is not in the file
    /// has the default role.
    pub fn certified(&self, user: &Arc<str>) -> Identity {
        let known = self.users.as_ref().and_then(|users| users.get(user));
        let roles = known.map_or_else(default_roles, |(_, user)| Arc::clone(&user.roles));
        Identity { user: Some(Arc::clone(user)), roles }
    }
}

/// Faults of users with a role that does not exist. Such a role would allow nothing, which is never intended.
fn unknown_roles(path: &Path, users: &Users, acl: &Acl) -> Vec<ConfigFault> {
    let expected = || {
        let names: Vec<&str> = acl.role_names().collect();
        format!("a role of the ACL file or a built-in one: {}", names.join(", "))
    };
    let mut faults = Vec::new();
    for (name, user) in users.iter() {
        for role in user.roles.iter().filter(|role| !acl.has_role(role)) {
            let problem =
                ConfigProblem::new(format!("user {name:?} has the role {role:?}, which does not exist"), expected());
            let origin = ConfigOrigin::Line(path.display().to_string(), user.line);
            faults.push(ConfigFault { origin, key: String::new(), problem });
        }
    }
    faults.sort_by(|a, b| a.origin.cmp(&b.origin));
    faults
}

fn load_users(path: &Path) -> Result<Users, Vec<ConfigFault>> {
    let name = path.display().to_string();
    match secret_file::read(path) {
        Ok(text) => Users::parse(&name, &text),
        Err(error) => {
            let wrong = format!("the users file cannot be read: {error}");
            let problem = ConfigProblem::new(
                wrong,
                "a file that weir passwd wrote and that weir's user may read (mqtt.auth.users)",
            );
            Err(vec![ConfigFault { origin: ConfigOrigin::File(name), key: String::new(), problem }])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{Access, ClientCredentials, LoginError, StoredPassword};
    use super::*;
    use crate::tls::CertificateId;

    const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    const OTHER: &str = "$argon2id$v=19$m=256,t=2,p=1$b3RoZXJzYWx0$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    fn policy(users: &str, allow_anonymous: bool) -> Policy {
        let users = Users::parse("users", users).expect("users");
        Policy { users: Some(users), allow_anonymous, ..Policy::default() }
    }

    fn roles(identity: Option<&Identity>) -> Option<Vec<String>> {
        identity.map(|identity| identity.roles.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn check_renewed(policy: &Policy, user: Option<&str>, proof: &Proof, expected: Option<&[&str]>) {
        let identity = Identity { user: user.map(Into::into), roles: Arc::new(["before".into()]) };
        let renewed = policy.renew(&identity, proof);
        let expected = expected.map(|roles| roles.iter().map(ToString::to_string).collect());
        assert_eq!(roles(renewed.as_ref()), expected);
        assert!(renewed.is_none_or(|renewed| renewed.user == identity.user));
    }

    #[test]
    fn an_open_connection_under_another_policy() {
        let password = Proof::Password(StoredPassword::parse(HASH).expect("a hash"));
        let same = policy(&format!("ada:a,b:{HASH}\nbob::{HASH}"), false);
        check_renewed(&same, Some("ada"), &password, Some(&["a", "b"]));
        check_renewed(&same, Some("eve"), &password, None);
        check_renewed(&policy(&format!("ada::{OTHER}"), true), Some("ada"), &password, None);
        check_renewed(&Policy::without_users(true), Some("ada"), &password, None);
        check_renewed(&same, Some("pump"), &Proof::Certificate(None), Some(&["device"]));
        check_renewed(&same, Some("ada"), &Proof::Certificate(None), Some(&["a", "b"]));
        check_renewed(&same, None, &Proof::None, None);
        // A stored session has no proof.
        check_renewed(&same, Some("ada"), &Proof::None, Some(&["a", "b"]));
        check_renewed(&policy("", true), Some("ada"), &Proof::None, None);
        check_renewed(&policy("", true), None, &Proof::None, Some(&["anonymous"]));
    }

    #[test]
    fn a_revoked_certificate_is_refused_and_its_user_remains() {
        let [shown, other] = [b"1", b"2"].map(|serial| CertificateId::new(b"issuer", serial));
        let access = Access::new(policy("", false));
        access.revoke([shown].into_iter().collect());
        let version = access.version();
        access.replace(policy(&format!("ada:a:{HASH}"), false));
        assert!(access.version() > version);
        let revoked = Proof::Certificate(Some(shown));
        check_renewed(&access.policy(), Some("ada"), &revoked, None);
        check_renewed(&access.policy(), Some("ada"), &Proof::Certificate(Some(other)), Some(&["a"]));
        assert_eq!(roles(access.policy().identity_of(&"pump".into(), &revoked).as_ref()), Some(vec!["device".into()]));
        access.revoke(RevokedCertificates::default());
        check_renewed(&access.policy(), Some("ada"), &revoked, Some(&["a"]));
    }

    #[tokio::test]
    async fn a_certificate_that_was_revoked_after_the_handshake_is_refused() {
        let shown = CertificateId::new(b"issuer", b"1");
        let access = Access::new(policy("", false));
        let user: Arc<str> = "pump".into();
        let credentials = ClientCredentials {
            certificate_user: Some(&user),
            certificate: Some(shown),
            ..ClientCredentials::default()
        };
        let login = access.log_in(&credentials).await.expect("it is not revoked");
        assert_eq!(login.proof, Proof::Certificate(Some(shown)));
        access.revoke([shown].into_iter().collect());
        let refused = access.log_in(&credentials).await.expect_err("it is revoked");
        assert_eq!(refused.error, LoginError::NotAuthorized);
    }

    #[test]
    fn roles_have_to_exist() {
        let directory = tempfile::tempdir().expect("a directory");
        let (users, acl) = (directory.path().join("users"), directory.path().join("acl"));
        let mut config = Config::default();
        (config.mqtt.auth.users, config.mqtt.auth.acl) = (Some(users.clone()), Some(acl.clone()));
        fs::write(&users, format!("ada:bridge:{HASH}\nbob:x,y:{HASH}\neve:x:{HASH}\n")).expect("a file");
        let load = || Policy::load(&config).map_err(|ConfigErrors(faults)| faults);
        let places = |faults: Vec<ConfigFault>| faults.iter().map(|fault| fault.origin.to_string()).collect::<Vec<_>>();
        let named = |name: &std::path::Path, line| format!("{}:{line}", name.display());
        fs::write(&acl, "[roles.x]\n").expect("a file");
        let faults = load().expect_err("no role y");
        assert!(faults[0].to_string().contains("\"y\", which does not exist; expected"), "{faults:?}");
        assert_eq!(places(faults), [named(&users, 2)]);
        fs::write(&acl, "[roles.x]\n[roles.y]\n").expect("a file");
        assert!(load().is_ok_and(|policy| policy.acl.has_role("y")));
        // Without readable rules it is unknown which roles exist, so no role is reported as missing.
        fs::write(&acl, "[roles.x]\nwrong = 1\n").expect("a file");
        assert_eq!(places(load().expect_err("a wrong key")), [named(&acl, 2)]);
        fs::write(&acl, [0xff]).expect("a file");
        assert!(load().expect_err("no text")[0].to_string().contains("the ACL file cannot be read"));
    }

    #[test]
    fn an_acl_file_has_a_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let acl = directory.path().join("acl");
        fs::write(&acl, vec![b'#'; (1 << 20) + 1]).expect("a file");
        let mut config = Config::default();
        config.mqtt.auth.acl = Some(acl);
        let ConfigErrors(faults) = Policy::load(&config).expect_err("too large");
        assert!(faults[0].to_string().contains("at most 1 MiB"), "{faults:?}");
    }

    #[test]
    fn files_are_read_or_all_faults_are_reported() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("users");
        let mut config = Config::default();
        config.mqtt.auth.users = Some(path.clone());
        let load = || Policy::load(&config).map_err(|errors| errors.to_string());
        assert!(load().expect_err("no file").contains("users: the users file cannot be read"));
        fs::write(&path, format!("ada::{HASH}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        let loaded = load().expect("a policy");
        assert!(loaded.warnings.is_empty() && !loaded.allow_anonymous);
        assert_eq!(loaded.users.map(|users| users.len()), Some(1));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("permissions");
        assert_eq!(load().expect("a policy").warnings.len(), 1);
        fs::write(&path, [0xff]).expect("a file");
        assert!(load().expect_err("not UTF-8").contains("cannot be read"));
        assert!(Policy::load(&Config::default()).expect("a policy").allow_anonymous);
    }
}
