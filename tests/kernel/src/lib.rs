//! What the programs need of a kernel, in memory.
//!
//! It has the names of aya-ebpf, as far as the programs use them, so that their sources are compiled for the host as they
//! are: maps that user space could have made, and the helpers. A packet lies in memory that ends where its linear part
//! does, so that a read past it is a fault, as it would be an error of the verifier.
//!
//! Everything is the same at every run: nothing is random, and the clock stands still until it is moved. There is one
//! kernel to a process; who uses it holds [`lock`].

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use aya_ebpf_bindings::bindings;
pub use aya_ebpf_macros as macros;

pub use self::buffer::Buffer;

mod buffer;
pub mod helpers;
pub mod maps;

static KERNEL: Mutex<()> = Mutex::new(());

/// Waits until nobody else uses the kernel of this process.
pub fn lock() -> MutexGuard<'static, ()> {
    KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
}
