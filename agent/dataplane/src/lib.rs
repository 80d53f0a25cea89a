//! Applies verdict tables to the kernel.

pub mod caps;
pub mod link;
pub mod load;
pub mod netlink;
pub mod pins;
