//! The only pointer arithmetic: bounds-checked reads of the packet's linear part.

use crate::skb::Skb;

/// The linear part of a packet. Invalid after a helper call that may move it; so everything is read
/// first, and only then decided.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    start: usize,
    end: usize,
}

impl Bytes {
    /// The linear part as it is now.
    #[inline(always)]
    pub(crate) fn of(skb: Skb) -> Self {
        Self {
            start: skb.data() as usize,
            end: skb.data_end() as usize,
        }
    }

    /// The bytes from `offset` on; `None` if fewer than `length` are left. `offset` is bounded by the
    /// caller to what the verifier accepts in a packet pointer (64 KiB).
    #[inline(always)]
    pub(crate) fn at(self, offset: usize, length: usize) -> Option<Header> {
        let start = self.start + offset;
        if start + length > self.end {
            None
        } else {
            Some(Header(start))
        }
    }
}

/// Bytes whose presence was checked.
#[derive(Clone, Copy)]
pub(crate) struct Header(usize);

impl Header {
    /// The byte at a constant offset.
    ///
    /// # Safety
    /// The offset lies within the length that [`Bytes::at`] checked; the verifier proves it again.
    #[inline(always)]
    pub(crate) unsafe fn u8(self, offset: usize) -> u8 {
        // SAFETY: the caller's promise.
        unsafe { *((self.0 + offset) as *const u8) }
    }

    /// The 16 bits there, in network order as they lie in memory.
    ///
    /// # Safety
    /// As [`Header::u8`]. The architectures built for load unaligned words of a packet.
    #[inline(always)]
    pub(crate) unsafe fn u16(self, offset: usize) -> u16 {
        // SAFETY: the caller's promise.
        unsafe { *((self.0 + offset) as *const u16) }
    }

    /// The 32 bits there, in network order as they lie in memory.
    ///
    /// # Safety
    /// As [`Header::u16`].
    #[inline(always)]
    pub(crate) unsafe fn u32(self, offset: usize) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { *((self.0 + offset) as *const u32) }
    }
}
