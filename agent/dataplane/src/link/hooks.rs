//! Notices that others have changed a TCX hook or removed a link's pin: the kernel tells nobody. It takes one system call for
//! each hook, which only asks how often that was changed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    link::{attach::AttachError, tcx},
    netlink::Hook,
    pins,
};

/// The hooks for which links are pinned in a folder, as they were at the last look.
#[derive(Debug)]
pub struct Hooks {
    root: PathBuf,
    seen: BTreeMap<(u32, Hook), u64>,
}

impl Hooks {
    /// Those of the folder of pins `root`, and devices of the calling thread's network namespace at each look.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            seen: BTreeMap::new(),
        }
    }

    /// Whether a program on them, or a pin, has come, gone, moved or been replaced since the last look; by whom is not known.
    ///
    /// # Errors
    ///
    /// Pins cannot be listed, or a hook not be asked.
    pub fn have_changed(&mut self) -> Result<bool, AttachError> {
        let mut present = BTreeMap::new();
        for (ifindex, hook) in pins::links(&self.root)? {
            present.insert((ifindex, hook), tcx::revision(ifindex, hook)?);
        }
        let changed = present != self.seen;
        self.seen = present;
        Ok(changed)
    }
}
