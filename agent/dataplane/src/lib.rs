//! Applies verdict tables to the kernel.
#![deny(unsafe_code)]

pub mod apply;
pub mod bpffs;
pub mod caps;
pub mod dataplane;
pub mod encode;
pub mod events;
pub mod link;
pub mod load;
pub mod maps;
pub mod mirror;
pub mod netlink;
pub mod pins;
pub mod plan;
