//! How the agent shows itself: its log, its health, its metrics.

pub mod flow_log;
pub mod health;
pub mod http;
pub mod log;
pub mod metrics;
pub mod packets;
pub mod traffic;
