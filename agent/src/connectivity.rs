//! Whether a cluster keeps to NetworkPolicy: scenarios with pods of their own, real packets, and what came of them.
//!
//! Nothing here is particular to Palisade. Whatever enforces policies in a cluster, or nothing, is asked the same
//! questions; only the flow log of what fails comes from the agents, where there are any.
//!
//! The pods are `palisade` too: every one listens (`serve`), and in every one runs `connect`, to which the test writes
//! whom to reach and which answers what came of it, a line each. So an attempt costs no more than its packets.

pub mod connect;
pub mod lane;
pub mod places;
pub mod probe;
pub mod report;
pub mod run;
pub mod scenario;
pub mod serve;
pub mod session;
pub mod stage;
pub mod wire;
