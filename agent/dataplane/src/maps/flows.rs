//! How many flows live, and those that are taken up.

use std::{
    collections::{HashMap as Counts, HashSet},
    hash::{BuildHasher as _, RandomState},
    time::Instant,
};

use aya::maps::MapError;
use aya_obj::generated::BPF_NOEXIST;
use palisade_common::{key::FlowKey, value::Flow};

use super::{Maps, sweep::MOST_KEYS};
use crate::load::Clock;

impl Maps {
    /// How many live flows each of these slots has: those that pass packets, and whose time is not over. It reads all flows
    /// of the node, which takes a second where there are hundreds of thousands. Those that begin meanwhile may be missing.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn live_flows(
        &self,
        slots: &HashSet<u16>,
        clock: &Clock,
    ) -> Result<Counts<u16, u64>, MapError> {
        let now = Instant::now();
        let mut counts: Counts<u16, u64> = slots.iter().map(|&slot| (slot, 0)).collect();
        // A flow that was answered still has its first entry, and a key that goes while it is read begins the reading
        // anew: digests of the keys are enough to count each once, and take a third of their room.
        let (digest, mut seen) = (RandomState::new(), HashSet::new());
        for (flows, answered) in [
            (&self.flows_stream, true),
            (&self.flows_datagram, true),
            (&self.flows_new, false),
        ] {
            for entry in flows.iter().take(MOST_KEYS) {
                let (key, flow) = entry?;
                if let Some(count) = counts.get_mut(&key.slot)
                    && is_live(&key, &flow, answered, clock.age(flow.seen, now), clock.hz())
                    && seen.insert(digest.hash_one(key))
                {
                    *count += 1;
                }
            }
        }
        Ok(counts)
    }

    /// Adds answered flows of datagrams, at most as many as the table holds, and over no entry that is there. How many it
    /// added.
    ///
    /// # Errors
    ///
    /// What the kernel says of a write; those before it are done.
    pub fn take_up(
        &mut self,
        flows: impl IntoIterator<Item = (FlowKey, Flow)>,
    ) -> Result<usize, MapError> {
        let mut added = 0;
        for (key, flow) in flows.into_iter().take(self.datagrams as usize) {
            match self.flows_datagram.insert(key, flow, BPF_NOEXIST.into()) {
                Ok(()) => added += 1,
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(added)
    }
}

/// Whether a flow passes packets that come now, as the programs see it.
fn is_live(key: &FlowKey, flow: &Flow, answered: bool, age: u32, hz: u32) -> bool {
    let lifetime = Flow::lifetime(key.protocol, answered, flow.tcp).wrapping_mul(hz);
    flow.flags & (Flow::PENDING | Flow::REVOKED) == 0 && age <= lifetime
}

#[cfg(test)]
mod tests {
    use palisade_common::protocol;

    use super::*;

    #[test]
    fn what_waits_is_revoked_or_is_over_does_not_live() {
        let key = FlowKey {
            remote: [1, 0, 0, 0],
            local_port: 80,
            remote_port: 4000,
            slot: 1,
            protocol: protocol::UDP,
            family: palisade_common::family::V4,
        };
        let flow = |flags| Flow {
            flags,
            ..Flow::default()
        };
        let live = |flags, answered, seconds: u32| {
            is_live(&key, &flow(flags), answered, seconds * 250, 250)
        };
        assert!(live(Flow::INGRESS, true, 180));
        assert!(!live(Flow::INGRESS, true, 181));
        assert!(!live(Flow::INGRESS, false, 31));
        assert!(!live(Flow::INGRESS | Flow::PENDING, true, 1));
        assert!(!live(Flow::INGRESS | Flow::REVOKED, true, 1));
    }
}
