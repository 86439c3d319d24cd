//! Users, roles and audit events of MQTT clients.

pub mod acl;
mod acl_reload;
mod audit;
mod device;
pub mod login;
mod login_storm;
mod map_topics;
mod passwd;
mod peers;
mod quotas;
mod redelivery;
mod rules;
mod tenants;
mod users_reload;
