//! The maps as objects of the kernel, by name: what keeps them pinned.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapError, MapInfo};

use crate::link::bpf;

/// A map cannot be kept pinned.
#[derive(Debug, thiserror::Error)]
pub enum HandlesError {
    /// What is pinned cannot be looked at.
    #[error("cannot look at the pin {}", path.display())]
    Look {
        /// The pin.
        path: PathBuf,
        /// Why not.
        #[source]
        source: MapError,
    },
    /// A pin cannot be removed or made.
    #[error("cannot {operation} the pin {}", path.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// The pin.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A descriptor of each map, and its id.
#[derive(Debug, Default)]
pub(super) struct Handles(BTreeMap<String, (u32, OwnedFd)>);

impl Handles {
    /// Takes note of a map; how many entries it can hold.
    pub(super) fn add(&mut self, name: &str, data: &MapData) -> Result<u32, MapError> {
        let info = data.info()?;
        let handle = data.fd().as_fd().try_clone_to_owned()?;
        self.0.insert(name.to_owned(), (info.id(), handle));
        Ok(info.max_entries())
    }

    /// Whether these are the same maps.
    pub(super) fn are(&self, others: &Self) -> bool {
        let ids = |handles: &Self| -> Vec<u32> { handles.0.values().map(|(id, _)| *id).collect() };
        self.0.len() == others.0.len() && ids(self) == ids(others)
    }

    /// Pins those maps again whose pins are gone, or are others.
    pub(super) fn pin_again(&self, folder: &Path) -> Result<u64, HandlesError> {
        let mut missing = 0;
        for (name, (id, handle)) in &self.0 {
            let path = folder.join(name);
            let fail = |operation| {
                let path = path.clone();
                move |source| HandlesError::Pin {
                    operation,
                    path,
                    source,
                }
            };
            match MapInfo::from_pin(&path) {
                Ok(info) if info.id() == *id => continue,
                Ok(_) => fs::remove_file(&path).map_err(fail("remove"))?,
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(HandlesError::Look { path, source }),
            }
            bpf::pin(handle, &path).map_err(fail("make"))?;
            missing += 1;
        }
        Ok(missing)
    }
}
