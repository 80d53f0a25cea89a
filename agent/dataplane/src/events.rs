//! The event ring, read.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use palisade_common::event::Event;

use crate::maps::Maps;

/// The reading end of the event ring. Its descriptor becomes readable when there are events.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    /// Takes the ring from the maps; `None` if it was taken before.
    pub fn take(maps: &mut Maps) -> Option<Self> {
        maps.events.take().map(|ring| Self { ring })
    }

    /// Appends the events that wait, so many at most. Returns the number of records that are of another
    /// layout and were dropped.
    pub fn read(&mut self, into: &mut Vec<Event>, most: usize) -> usize {
        let mut unreadable = 0;
        for _ in 0..most {
            let Some(record) = self.ring.next() else {
                break;
            };
            match Event::decode(&record) {
                Some(event) => into.push(event),
                None => unreadable += 1,
            }
        }
        unreadable
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
