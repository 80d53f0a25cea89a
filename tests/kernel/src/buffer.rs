//! A packet and its context.

use std::{io, ptr, slice, sync::OnceLock};

use crate::bindings::__sk_buff;

/// The longest linear part.
const ROOM: usize = 1 << 16;

/// Where room for packets is asked for: a context has 32 bits for an address.
const LOW: usize = 0x2000_0000;

/// A packet at a hook.
#[repr(C)]
pub struct Buffer<'a> {
    /// First, so that a pointer to the context is one to the buffer.
    context: __sk_buff,
    frame: &'a [u8],
}

impl std::fmt::Debug for Buffer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").finish_non_exhaustive()
    }
}

impl<'a> Buffer<'a> {
    /// A frame whose first `linear` bytes are linear, or all if there are fewer.
    ///
    /// # Panics
    /// Where the linear part is longer than 64 KiB.
    #[must_use]
    pub fn new(frame: &'a [u8], linear: usize) -> Self {
        // SAFETY: plain numbers, for which zeroes are good.
        let context: __sk_buff = unsafe { std::mem::zeroed() };
        let mut buffer = Self { context, frame };
        buffer.context.len = frame.len() as u32;
        if let Some(kind) = frame.get(12..14) {
            buffer.context.protocol = u32::from(u16::from_ne_bytes([kind[0], kind[1]]));
        }
        buffer.place(linear);
        buffer
    }

    /// The context that a program is given.
    pub fn context(&mut self) -> &mut __sk_buff {
        &mut self.context
    }

    /// The buffer of a context.
    ///
    /// # Safety
    /// The context is that of a buffer to which nothing else refers.
    pub(crate) unsafe fn of(context: *mut __sk_buff) -> &'a mut Self {
        // SAFETY: the context is the buffer's first field, as the caller promises.
        unsafe { &mut *context.cast::<Self>() }
    }

    /// Makes so many bytes linear, and moves them, so that whoever holds an old pointer reads something else.
    pub(crate) fn pull(&mut self, length: usize) {
        let linear = self.context.data_end - self.context.data;
        if length > linear as usize {
            self.place(length);
        }
    }

    /// Puts the linear part where the readable memory ends.
    fn place(&mut self, linear: usize) {
        let linear = &self.frame[..linear.min(self.frame.len())];
        assert!(linear.len() <= ROOM, "a linear part of 64 KiB at most");
        let end = end_of_room();
        let start = end - linear.len();
        // SAFETY: within the room, which is writable up to its end.
        let room = unsafe {
            slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(start), linear.len())
        };
        room.copy_from_slice(linear);
        self.context.data = start as u32;
        self.context.data_end = end as u32;
    }
}

/// Where the room ends: what comes behind can be neither read nor written.
fn end_of_room() -> usize {
    static END: OnceLock<usize> = OnceLock::new();
    *END.get_or_init(|| {
        let hint = ptr::without_provenance_mut(LOW);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a hint takes nothing away from anybody.
        let room = unsafe { libc::mmap(hint, 2 * ROOM, access, kind, -1, 0) };
        assert!(
            room != libc::MAP_FAILED,
            "room for a packet: {}",
            io::Error::last_os_error()
        );
        let behind = room.wrapping_byte_add(ROOM);
        // SAFETY: the second half of what was mapped, which nobody has used.
        let protected = unsafe { libc::mprotect(behind, ROOM, libc::PROT_NONE) };
        assert!(
            protected == 0,
            "protecting what is behind: {}",
            io::Error::last_os_error()
        );
        let end = behind.expose_provenance();
        assert!(u32::try_from(end).is_ok(), "no room below 4 GiB");
        end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_linear_part_is_there_until_more_is_pulled() {
        let _kernel = crate::lock();
        let frame: Vec<u8> = (0..100).collect();
        let mut buffer = Buffer::new(&frame, 40);
        let linear = |buffer: &Buffer<'_>| buffer.context.data_end - buffer.context.data;
        assert_eq!((buffer.context.len, linear(&buffer)), (100, 40));
        buffer.pull(20);
        assert_eq!(linear(&buffer), 40);
        buffer.pull(512);
        assert_eq!(linear(&buffer), 100);
        assert_eq!(
            buffer.context.protocol,
            u32::from(u16::from_ne_bytes([12, 13]))
        );
    }
}
