//! The packet's context, and every direct call of a BPF helper that takes it.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns, bpf_set_hash, bpf_skb_pull_data},
};
use palisade_common::mark::{self, State};

/// A packet at a TC hook.
#[derive(Clone, Copy)]
pub(crate) struct Skb(*mut __sk_buff);

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $field:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(self) -> u32 {
            // SAFETY: the kernel hands the program a valid context for as long as it runs.
            unsafe { (*self.0).$field }
        }
    )*};
}

impl Skb {
    /// The packet of this context.
    #[inline(always)]
    pub(crate) fn new(context: *mut __sk_buff) -> Self {
        Self(context)
    }

    /// The context, for helpers elsewhere.
    #[inline(always)]
    pub(crate) fn context(self) -> *mut __sk_buff {
        self.0
    }

    fields! {
        /// Length in bytes, link header included.
        len: len;
        /// Start of the linear part.
        data: data;
        /// End of the linear part.
        data_end: data_end;
        /// EtherType, as it lies in memory.
        protocol: protocol;
        /// Whether a VLAN tag is carried out of band.
        vlan_present: vlan_present;
        /// Index of the device.
        ifindex: ifindex;
        /// Index of the device the packet came in by; 0 if it was made here.
        ingress_ifindex: ingress_ifindex;
        /// Our mark.
        tc_index: tc_index;
        /// Our cookie, after `from_pod`.
        hash: hash;
    }

    /// Writes slot and state. `tc_classid` too, for a program after ours that returns TC_ACT_OK copies
    /// it over `tc_index`.
    #[inline(always)]
    pub(crate) fn set_mark(self, slot: u16, state: State) {
        let mark = u32::from(mark::encode(slot, state));
        // SAFETY: as in `fields`; the kernel lets classifiers write this field.
        unsafe { (*self.0).tc_index = mark };
        // SAFETY: as above.
        unsafe { (*self.0).tc_classid = mark };
    }

    /// Writes the cookie.
    #[inline(always)]
    pub(crate) fn set_cookie(self, cookie: u32) {
        // SAFETY: the helper takes any value.
        unsafe { bpf_set_hash(self.0, cookie) };
    }

    /// Makes the first `length` bytes linear, as far as there are so many. Ends all packet pointers.
    #[inline(always)]
    pub(crate) fn pull(self, length: u32) {
        let length = if self.len() < length {
            self.len()
        } else {
            length
        };
        // SAFETY: no packet pointer is held across the call; a failure leaves the packet as it was, and
        // the reads after it are bounds-checked.
        unsafe { bpf_skb_pull_data(self.0, length) };
    }
}

/// Low 32 bits of the jiffies: next to free, where `bpf_ktime_get_ns` reads a clock.
#[inline(always)]
pub(crate) fn jiffies() -> u32 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_jiffies64() as u32 }
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn monotonic() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_ktime_get_ns() }
}
