//! Authentication and authorization: who may connect to MQTT and HTTP, and what they may do there.
//!
//! This part reads the files of users, roles and tokens, checks passwords, and answers whether a client may publish or
//! subscribe. It does not end connections: after a change the broker judges open connections and stored sessions anew.
//! TLS client certificates are verified by `tls`; here they are taken as a proof of a user name.

mod acl;
mod early_refusals;
mod hash_line;
mod hash_pool;
pub mod http_access;
mod identity;
mod login;
mod login_failures;
mod password;
mod password_cache;
mod policy;
pub mod secret_file;
mod service;
mod stored_password;
pub mod tokens;
mod users;

pub use acl::{Acl, MapTopics, Permissions};
pub use identity::{Identity, Login, Proof};
pub use login::{ClientCredentials, LoginError, RefusedLogin};
pub use password::{Password, RandomError};
pub use policy::Policy;
pub use service::Access;
pub use stored_password::{Argon2Hash, GeneratedHash, HashError, StoredPassword, StoredPasswordError};
pub use users::{
    ANONYMOUS_ROLE, DEFAULT_ROLE, MAX_USER_BYTES, ROLE_FORM, USER_FORM, User, Users, is_role, is_user, split_line,
};
