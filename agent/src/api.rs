//! The agent's own API: JSON over HTTP on a unix socket, for `palisade status` and its siblings.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`](proto::Status) |
//! | `GET /v1/pods?flows=` | [`Pods`](proto::Pods) |
//! | `GET /v1/policies` | [`Policies`](proto::Policies) |
//! | `GET /v1/explain?from=&to=&port=` | [`Explanation`](proto::Explanation), or [`Failure`](proto::Failure) |
//! | `GET /v1/flows?last=` | the last denied packets: a list of [`Flow`](proto::Flow), oldest first |
//!
//! Keys are only ever added. Whoever may connect may read, so the socket is its owner's alone.

pub mod client;
pub mod proto;
pub mod server;
