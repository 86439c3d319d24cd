//! What the tests share: a weir process, an MQTT client, HTTP, certificates, faults of the operating system, waits.

pub mod certificates;
pub mod http;
pub mod mqtt;
pub mod process;
pub mod random;
pub mod shim;
pub mod wait;
