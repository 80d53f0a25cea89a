//! The node's devices: which of them carry pods, and the programs on them.

pub mod attach;
#[expect(unsafe_code, reason = "bpf(2) takes pointers and gives descriptors")]
pub(crate) mod bpf;
mod clsact;
pub mod device;
pub mod discover;
mod files;
pub mod hooks;
mod moves;
pub mod others;
mod plan;
pub mod program;
mod tcx;
pub mod uninstall;
