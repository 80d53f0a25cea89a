//! Carries plans out.

use std::collections::HashSet;

use crate::{
    maps::Capacity,
    mirror::{Dump, Mirror},
    plan::op::Op,
};

/// Why a write or a reading failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The map is full.
    #[error("the map is full")]
    Full,
    /// The kernel has no memory at the moment.
    #[error("the kernel has no memory")]
    Memory,
    /// Anything else.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// Where writes go.
pub trait Store {
    /// Performs one write.
    ///
    /// # Errors
    ///
    /// If the write was not done; nothing has changed then.
    fn perform(&mut self, op: &Op) -> Result<(), StoreError>;

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// The first reading that failed.
    fn dump(&self) -> Result<Dump, StoreError>;

    /// Forgets the flows and counters of slots that are about to be given again.
    ///
    /// # Errors
    ///
    /// If some may still be there.
    fn sweep(&mut self, slots: &HashSet<u16>) -> Result<(), StoreError>;

    /// How much there is room for.
    fn capacity(&self) -> Capacity;
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
#[error("writing {op}")]
pub struct Failure {
    /// The write.
    pub op: Op,
    /// Why.
    #[source]
    pub source: StoreError,
}

/// How often a write is tried that failed for want of memory: the kernel refills its reserve meanwhile.
const TRIES: usize = 5;

/// Performs one write and takes note of it.
pub(crate) fn perform(
    store: &mut impl Store,
    mirror: &mut Mirror,
    op: &Op,
) -> Result<(), StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match store.perform(op) {
            Ok(()) => {
                mirror.note(op);
                return Ok(());
            }
            Err(StoreError::Memory) if tries < TRIES => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}
