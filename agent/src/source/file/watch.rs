//! Watches the folder of objects.

use std::ops::ControlFlow;

use super::{super::Batch, Folder};
use crate::watcher::Watcher;

/// Looks at the folder whenever it changes and at least every five seconds, and tells what moved, until
/// told to break off. Blocks its thread.
pub fn watch(mut folder: Folder, mut tell: impl FnMut(Option<Batch>) -> ControlFlow<()>) {
    let mut watcher = Watcher::default();
    loop {
        watcher.attach(folder.path());
        watcher.drain();
        let touched = std::mem::take(&mut watcher.touched);
        let reads = folder.read(&touched, &watcher.busy);
        // What was written to while it was read is half-written.
        watcher.drain();
        let batch = folder.take(reads, &watcher.busy);
        if tell(batch).is_break() {
            return;
        }
        watcher.wait();
    }
}
