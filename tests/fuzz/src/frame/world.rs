//! The [`Scene`], with the programs and maps of this process.

use std::sync::MutexGuard;

use palisade_common::{
    key::CellKey,
    limits,
    value::{Interface, PortSet, Slot},
    verdict::Verdict,
};
use palisade_dataplane::plan::op::Op;
use palisade_ebpf::host::{MAPS, from_pod, to_pod, to_wire};
use palisade_kernel::{
    Buffer,
    helpers::generated::{HZ, set_jiffies},
    maps::lpm_trie::Key,
};
use palisade_tests::rig::{POD, Scene, address};
use std::net::IpAddr;

const POD_DEVICE: u32 = 2;
const NEIGHBOUR_DEVICE: u32 = 3;
const UPLINK: u32 = 4;

/// As if the node were up for an hour.
const START: u64 = 3600 * HZ as u64;

/// Maps and clock as they are at first; nobody else has them meanwhile.
pub(super) struct World {
    jiffies: u64,
    _kernel: MutexGuard<'static, ()>,
}

impl World {
    pub(super) fn new() -> Self {
        let kernel = palisade_kernel::lock();
        MAPS.clear();
        for (ifindex, slot) in [
            (POD_DEVICE, POD),
            (NEIGHBOUR_DEVICE, Scene::NEIGHBOUR),
            (UPLINK, 0),
        ] {
            let interface = Interface {
                slot,
                link_header: 14,
                flags: Interface::KNOWN,
            };
            told(MAPS.interfaces.set(ifindex, interface, 0));
        }
        for write in Scene::writes([POD_DEVICE, NEIGHBOUR_DEVICE], HZ) {
            perform(&write);
        }
        set_jiffies(START);
        Self {
            jiffies: START,
            _kernel: kernel,
        }
    }

    pub(super) fn wait(&mut self, seconds: u8) {
        self.jiffies += u64::from(seconds) * u64::from(HZ);
        set_jiffies(self.jiffies);
    }

    /// Gives the pod these tables, and has every flow judged again.
    pub(super) fn tables(&mut self, ingress: u32, egress: u32) {
        let slot = *MAPS.slots.get(POD.into()).expect("the pod's slot");
        let value = Slot {
            ingress,
            egress,
            ..slot
        };
        perform(&Op::Slot { slot: POD, value });
        let mut config = *MAPS.config.get(0).expect("the configuration");
        config.revision += 1;
        perform(&Op::Config(config));
    }

    pub(super) fn arrive(&mut self, packet: &mut Buffer<'_>) -> Verdict {
        packet.context().ifindex = POD_DEVICE;
        packet.context().ingress_ifindex = UPLINK;
        to_pod(packet)
    }

    pub(super) fn send(&mut self, packet: &mut Buffer<'_>) -> Verdict {
        packet.context().ifindex = POD_DEVICE;
        packet.context().ingress_ifindex = POD_DEVICE;
        from_pod(packet)
    }

    /// What `sent` has become after it came by `from_pod`.
    pub(super) fn leave(&mut self, sent: &mut Buffer<'_>, packet: &mut Buffer<'_>) -> Verdict {
        let (mark, hash) = (sent.context().tc_index, sent.context().hash);
        let context = packet.context();
        context.ifindex = UPLINK;
        context.ingress_ifindex = POD_DEVICE;
        context.tc_index = mark;
        context.hash = hash;
        to_wire(packet)
    }
}

/// Writes as the agent does.
fn perform(op: &Op) {
    told(match op {
        Op::Leaf { leaf, ports } => MAPS.port_leaves.set(*leaf, ports, 0),
        Op::Set { set, leaves, .. } => {
            let mut value = PortSet {
                leaves: [0; limits::SET_LEAVES],
            };
            for &(place, leaf) in leaves {
                value.leaves[usize::from(place)] = leaf;
            }
            MAPS.port_sets.set(*set, value, 0)
        }
        Op::Cell { table, class, cell } => {
            let key = CellKey {
                table: *table,
                class: *class,
            };
            match cell {
                Some(cell) => MAPS.cells.insert(key, cell, 0),
                None => MAPS.cells.remove(key),
            }
        }
        Op::Default { table, cell } => MAPS.tables.set(*table, cell, 0),
        Op::Peer {
            address: of @ IpAddr::V4(_),
            peer: Some(peer),
        } => MAPS.peers_v4.insert(address(*of)[0], peer, 0),
        Op::Peer {
            address: of,
            peer: Some(peer),
        } => MAPS.peers_v6.insert(address(*of), peer, 0),
        Op::Block {
            net,
            class: Some(class),
        } => {
            let (length, words) = (net.prefix_len().into(), address(net.addr()));
            match net.addr() {
                IpAddr::V4(_) => MAPS.cidrs_v4.insert(Key::new(length, words[0]), class, 0),
                IpAddr::V6(_) => MAPS.cidrs_v6.insert(Key::new(length, words), class, 0),
            }
        }
        Op::Peer { peer: None, .. } | Op::Block { class: None, .. } => {
            unreachable!("a scene removes nothing")
        }
        Op::Slot { slot, value } => MAPS.slots.set((*slot).into(), value, 0),
        Op::Config(config) => MAPS.config.set(0, config, 0),
    });
}

fn told(written: Result<(), i32>) {
    written.expect("there is room in every map");
}
