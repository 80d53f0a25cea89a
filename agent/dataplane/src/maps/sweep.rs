//! What remembers slots beside the verdict maps: flows and counters.

use std::collections::HashSet;

use aya::{
    maps::{HashMap, MapData, MapError, PerCpuValues},
    util::nr_cpus,
};
use palisade_common::{
    key::FlowKey,
    value::{Counters, Flow},
    verdict::Direction,
};

use super::Maps;

impl Maps {
    /// Forgets the flows and counters of slots that are about to be given again. Flows of other slots that come
    /// and go meanwhile may make it pass over some keys twice.
    ///
    /// # Errors
    ///
    /// What the kernel says of a reading or a write; what was not reached is still there.
    pub fn sweep(&mut self, slots: &HashSet<u16>) -> Result<(), MapError> {
        sweep_flows(&mut self.flows_stream, slots)?;
        sweep_flows(&mut self.flows_datagram, slots)?;
        sweep_flows(&mut self.flows_new, slots)?;
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
        for &slot in slots {
            for direction in [Direction::Ingress, Direction::Egress] {
                let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])
                    .map_err(MapError::IoError)?;
                let index = 2 * u32::from(slot) + direction as u32;
                self.counters.set(index, zero, 0)?;
            }
        }
        Ok(())
    }

    /// The counters of a slot and direction, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// What the kernel says, for a slot past the end of the map as well.
    pub fn counters_of(&self, slot: u16, direction: Direction) -> Result<Counters, MapError> {
        let values = self
            .counters
            .get(&(2 * u32::from(slot) + direction as u32), 0)?;
        let mut sum = Counters::default();
        for value in values.iter() {
            sum.allowed_packets += value.allowed_packets;
            sum.allowed_bytes += value.allowed_bytes;
            sum.suppressed += value.suppressed;
            sum.denied_bytes += value.denied_bytes;
            sum.audited += value.audited;
            for (sum, count) in sum.denied.iter_mut().zip(value.denied) {
                *sum += count;
            }
        }
        Ok(sum)
    }
}

/// Keys of a table of flows that are read at most: a key that goes under the iteration starts it again.
pub(super) const MOST_KEYS: usize = 2 * palisade_common::limits::FLOWS as usize;

/// Removes the flows of the slots from one table. Keys are read first: a key that is removed under the
/// iteration would start it again.
fn sweep_flows(
    flows: &mut HashMap<MapData, FlowKey, Flow>,
    slots: &HashSet<u16>,
) -> Result<(), MapError> {
    let mut gone = Vec::new();
    for key in flows.keys().take(MOST_KEYS) {
        let key = key?;
        if slots.contains(&key.slot) {
            gone.push(key);
        }
    }
    for key in gone {
        match flows.remove(&key) {
            // Evicted, or ended, in between.
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
