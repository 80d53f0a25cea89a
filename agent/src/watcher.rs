//! Tells when a folder changes, with inotify.
//!
//! Events say when to look and which files are being written; what is there is always read anew, so no
//! event is needed for the state to become right: the folder is also looked at every few seconds.

use std::{
    collections::HashSet,
    fs,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

/// How often the folder is looked at without an event: links may lead out of it.
const PERIOD: Duration = Duration::from_secs(5);

/// How often it is looked at while it cannot be watched.
const RETRY: Duration = Duration::from_millis(100);

/// What may change what a file holds. Not `CREATE` alone, for a new file is written next; but links and
/// folders come with nothing else. `MODIFY` tells that a file is being written.
const EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// Whoever watches attaches, drains, looks, and waits.
#[derive(Default)]
pub(crate) struct Watcher {
    /// The queue, and the device and inode of the folder watched; `None` while it cannot be watched.
    queue: Option<(OwnedFd, (u64, u64))>,
    /// Files to be read whatever they look like.
    pub(crate) touched: HashSet<Arc<str>>,
    /// Files that were written to and not closed.
    pub(crate) busy: HashSet<Arc<str>>,
}

impl Watcher {
    /// Watches the folder to which the path leads, if that is not watched yet.
    pub(crate) fn attach(&mut self, path: &Path) {
        let present = fs::metadata(path)
            .map(|folder| (folder.dev(), folder.ino()))
            .ok();
        if self
            .queue
            .as_ref()
            .is_some_and(|(_, watched)| Some(*watched) != present)
        {
            self.forget();
        }
        let (None, Some(present)) = (&self.queue, present) else {
            return;
        };
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        match queue.and_then(|queue| inotify::add_watch(&queue, path, EVENTS).map(|_| queue)) {
            Ok(queue) => self.queue = Some((queue, present)),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "the folder cannot be watched")
            }
        }
    }

    /// Takes in the events that are there.
    pub(crate) fn drain(&mut self) {
        let Some((queue, _)) = &self.queue else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(queue, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    tracing::warn!(%error, "inotify: watching anew");
                    return self.forget();
                }
            };
            let events = event.events();
            let lost = ReadFlags::QUEUE_OVERFLOW
                | ReadFlags::IGNORED
                | ReadFlags::UNMOUNT
                | ReadFlags::DELETE_SELF
                | ReadFlags::MOVE_SELF;
            if events.intersects(lost) {
                return self.forget();
            }
            let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else {
                continue;
            };
            if events.contains(ReadFlags::MODIFY) {
                self.busy.insert(name.into());
            } else {
                self.busy.remove(name);
                self.touched.insert(name.into());
            }
        }
    }

    /// Events were lost, or the path leads to another folder than the one watched.
    fn forget(&mut self) {
        self.queue = None;
        self.busy.clear();
    }

    /// Waits until there is something to look at, or [`PERIOD`] is over.
    pub(crate) fn wait(&mut self) {
        let end = Instant::now() + PERIOD;
        while let Some((queue, _)) = &self.queue {
            // Files that are being written alone are nothing to look at yet.
            if !self.touched.is_empty() {
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).expect("a few seconds");
            let mut fds = [PollFd::new(queue, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "poll: watching anew");
                    self.forget();
                }
            }
            self.drain();
        }
        // Nothing tells when the folder can be watched.
        std::thread::sleep(RETRY);
    }
}
