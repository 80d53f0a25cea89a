//! The node's devices: which of them carry pods, and the programs on them.

pub mod attach;
pub(crate) mod bpf;
mod clsact;
pub mod device;
pub mod discover;
mod files;
mod plan;
mod tcx;
