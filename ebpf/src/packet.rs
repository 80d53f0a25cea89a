//! The only pointer arithmetic: bounds-checked reads of the packet's linear part.

use crate::skb::Skb;

/// The linear part of a packet. It moves when a helper changes the packet, and the verifier refuses reads
/// through what was taken before; so everything is read first, and only then decided.
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

    /// `LENGTH` bytes from `offset` on; `None` if fewer are left. `offset` is bounded by the caller to
    /// what the verifier accepts in a packet pointer (64 KiB).
    #[inline(always)]
    pub(crate) fn at<const LENGTH: usize>(self, offset: usize) -> Option<Header<LENGTH>> {
        let start = self.start + offset;
        if start + LENGTH > self.end {
            None
        } else {
            Some(Header(start))
        }
    }
}

/// `LENGTH` bytes whose presence was checked. Words are read unaligned, as the architectures built for
/// allow in a packet, and come in network order as they lie in memory.
#[derive(Clone, Copy)]
pub(crate) struct Header<const LENGTH: usize>(usize);

impl<const LENGTH: usize> Header<LENGTH> {
    #[inline(always)]
    fn read<T: Copy, const OFFSET: usize>(self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= LENGTH) };
        let place = (self.0 + OFFSET) as *const T;
        // SAFETY: within the bytes checked, as asserted; the verifier proves it again.
        #[cfg(target_arch = "bpf")]
        let word = unsafe { *place };
        // Elsewhere the language wants it said; here the compiler would read byte by byte.
        // SAFETY: as above.
        #[cfg(not(target_arch = "bpf"))]
        let word = unsafe { place.read_unaligned() };
        word
    }

    /// The byte at an offset.
    #[inline(always)]
    pub(crate) fn u8<const OFFSET: usize>(self) -> u8 {
        self.read::<u8, OFFSET>()
    }

    /// The 16 bits at an offset.
    #[inline(always)]
    pub(crate) fn u16<const OFFSET: usize>(self) -> u16 {
        self.read::<u16, OFFSET>()
    }

    /// The 32 bits at an offset.
    #[inline(always)]
    pub(crate) fn u32<const OFFSET: usize>(self) -> u32 {
        self.read::<u32, OFFSET>()
    }
}
