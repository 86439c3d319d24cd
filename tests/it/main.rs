//! The appliance from outside: the real process, real sockets, a fresh data directory for each test.
//!
//! Everything waits for conditions with a deadline. What a run chose at random is printed with its seed; a failing test
//! shows what weir logged.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helper functions too")]

mod acl;
mod acl_device;
mod acl_reload;
mod acl_rules;
mod audit;
mod auth_connect;
mod auth_passwd;
mod auth_peers;
mod auth_reload;
mod auth_storm;
mod certificates;
mod daemon;
mod docs;
mod durability;
mod errors_replay;
mod faults_clock;
mod faults_disk;
mod faults_state;
mod faults_takeover;
mod formats;
mod fuzz;
mod fuzz_entry;
mod hostile;
mod hostile_connections;
mod hostile_packets;
mod http;
mod http_auth;
mod layout;
mod load;
mod mqtt;
mod mqtt_clients;
mod mqtt_connect;
mod mqtt_flow;
mod mqtt_publish;
mod mqtt_retain;
mod mqtt_session;
mod mqtt_statements;
mod mqtt_subscribe;
mod mqtt_v5;
mod mqtt_will;
mod peers;
mod random;
mod readings;
mod reasons;
mod redelivery;
mod reload;
mod repair;
mod replay;
mod savepoints;
mod shim;
mod simulate;
mod small_disk;
mod steady;
mod tls;
mod tls_revocation;
mod wait;
mod websocket;
mod weir;
