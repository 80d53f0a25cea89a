//! The helpers that the programs call.

/// As the kernel's are numbered and typed in aya's bindings.
pub mod generated {
    use std::{
        ffi::{c_long, c_void},
        ptr,
        sync::atomic::{AtomicU64, Ordering},
    };

    use crate::{
        Buffer,
        bindings::{__sk_buff, bpf_sock, bpf_sock_tuple},
    };

    /// Jiffies; every second has [`HZ`].
    static JIFFIES: AtomicU64 = AtomicU64::new(0);

    /// Jiffies per second.
    pub const HZ: u32 = 250;

    /// Sets the clock.
    pub fn set_jiffies(jiffies: u64) {
        JIFFIES.store(jiffies, Ordering::Relaxed);
    }

    /// # Safety
    /// None is asked for: it is unsafe as the kernel's.
    pub unsafe fn bpf_jiffies64() -> u64 {
        JIFFIES.load(Ordering::Relaxed)
    }

    /// # Safety
    /// None is asked for: it is unsafe as the kernel's.
    pub unsafe fn bpf_ktime_get_ns() -> u64 {
        JIFFIES.load(Ordering::Relaxed) * (1_000_000_000 / u64::from(HZ))
    }

    /// # Safety
    /// The context is valid.
    pub unsafe fn bpf_set_hash(context: *mut __sk_buff, hash: u32) -> c_long {
        // SAFETY: as the caller promises.
        unsafe { (*context).hash = hash };
        0
    }

    /// # Safety
    /// The context is that of a [`Buffer`] to which nothing else refers.
    pub unsafe fn bpf_skb_pull_data(context: *mut __sk_buff, length: u32) -> c_long {
        // SAFETY: as the caller promises.
        let buffer = unsafe { Buffer::of(context) };
        buffer.pull(length as usize);
        0
    }

    /// No socket: pods have no connections here.
    ///
    /// # Safety
    /// None is asked for: it is unsafe as the kernel's.
    pub unsafe fn bpf_skc_lookup_tcp(
        _context: *mut c_void,
        _tuple: *mut bpf_sock_tuple,
        _size: u32,
        _namespace: u64,
        _flags: u64,
    ) -> *mut bpf_sock {
        ptr::null_mut()
    }

    /// # Safety
    /// None is asked for: there is no socket to release.
    pub unsafe fn bpf_sk_release(_socket: *mut c_void) -> c_long {
        0
    }
}
