//! What the kernel knows of the packets of each pod. It is read beside the engine, which no reading holds up.

use std::{collections::HashSet, sync::Arc};

use anyhow::{Context as _, Result};
use palisade_common::{
    value::Counters,
    verdict::{Direction, Reason},
};
use palisade_dataplane::{load::Clock, maps::Maps};

use crate::api::proto::{DirectionPackets, Packets, Pod, PodStatus, Pods};

/// Where it is read.
#[derive(Clone)]
pub struct Reader {
    node: Arc<str>,
    maps: Arc<Maps>,
    clock: Clock,
}

impl Reader {
    /// A reader of these maps.
    #[must_use]
    pub fn new(node: &str, maps: Arc<Maps>, clock: Clock) -> Self {
        Self {
            node: node.into(),
            maps,
            clock,
        }
    }

    /// Adds to pods what the kernel knows of them; their live flows only where they are asked for, for that reads the tables
    /// of all flows.
    ///
    /// # Errors
    ///
    /// A map cannot be read; which.
    pub fn pods(&self, pods: Vec<PodStatus>, flows: bool) -> Result<Pods> {
        let slots: HashSet<u16> = pods.iter().filter_map(|pod| pod.slot).collect();
        let live = match flows {
            true => {
                let live = self.maps.live_flows(&slots, &self.clock);
                Some(live.context("while reading the tables of flows")?)
            }
            false => None,
        };
        let pods = pods.into_iter().map(|status| {
            let slot = status.slot;
            let packets = slot.map(|slot| {
                let packets = self.packets(slot);
                packets.with_context(|| format!("while reading the counters of slot {slot}"))
            });
            Ok(Pod {
                node: self.node.to_string(),
                status,
                packets: packets.transpose()?,
                live_flows: slot.and_then(|slot| live.as_ref()?.get(&slot).copied()),
            })
        });
        Ok(Pods {
            pods: pods.collect::<Result<_>>()?,
            ..Pods::default()
        })
    }

    fn packets(&self, slot: u16) -> Result<Packets> {
        let of = |direction| self.maps.counters_of(slot, direction);
        Ok(Packets {
            ingress: packets(&of(Direction::Ingress)?),
            egress: packets(&of(Direction::Egress)?),
        })
    }
}

fn packets(counters: &Counters) -> DirectionPackets {
    let denied = Reason::ALL.into_iter().zip(counters.denied);
    DirectionPackets {
        allowed: counters.allowed_packets,
        audited: counters.audited,
        denied: denied
            .filter(|&(_, packets)| packets > 0)
            .map(|(reason, packets)| (reason.name().to_owned(), packets))
            .collect(),
        allowed_bytes: counters.allowed_bytes,
        denied_bytes: counters.denied_bytes,
    }
}
