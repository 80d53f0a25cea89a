//! Applies verdict tables to the kernel.
