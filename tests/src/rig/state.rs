//! What the maps hold, read and written by hand.

use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use palisade_common::{
    key::{CellKey, FlowKey},
    value::{Cell, Config, Flow, Peer, PortLeaf, PortSet, Slot},
    verdict::{Direction, Reason},
};

use super::{Rig, address};

impl Rig {
    /// The configuration.
    ///
    /// # Panics
    /// Where the map cannot be read.
    #[must_use]
    pub fn config(&self) -> Config {
        self.maps.config.get(&0, 0).expect("CONFIG")
    }

    /// Writes the configuration.
    ///
    /// # Panics
    /// Where the map cannot be written.
    pub fn configure(&mut self, config: Config) {
        self.maps.config.set(0, config, 0).expect("CONFIG");
    }

    /// Moves the revision.
    pub fn revise(&mut self) {
        let config = self.config();
        self.configure(Config {
            revision: config.revision + 1,
            ..config
        });
    }

    /// Sets or takes flags of the configuration.
    pub fn flag(&mut self, flag: u32, on: bool) {
        let mut config = self.config();
        config.flags = if on {
            config.flags | flag
        } else {
            config.flags & !flag
        };
        self.configure(config);
    }

    /// The slot of that number.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn slot(&self, number: u16) -> Slot {
        self.maps.slots.get(&u32::from(number), 0).expect("SLOTS")
    }

    /// Writes a slot.
    ///
    /// # Panics
    /// Where the map cannot be written.
    pub fn set_slot(&mut self, number: u16, slot: Slot) {
        let slots = &mut self.maps.slots;
        slots.set(u32::from(number), slot, 0).expect("SLOTS");
    }

    /// Gives a slot its verdict tables.
    pub fn tables(&mut self, number: u16, ingress: u32, egress: u32) {
        let slot = self.slot(number);
        self.set_slot(
            number,
            Slot {
                ingress,
                egress,
                ..slot
            },
        );
    }

    /// Gives a slot the tables of what is audited.
    pub fn audit(&mut self, number: u16, ingress: u32, egress: u32) {
        let slot = Slot {
            audited_ingress: ingress,
            audited_egress: egress,
            ..self.slot(number)
        };
        self.set_slot(number, slot);
    }

    /// Writes a cell.
    ///
    /// # Panics
    /// Where the map cannot be written.
    pub fn cell(&mut self, table: u32, class: u32, cell: Cell) {
        let cells = &mut self.maps.cells;
        cells
            .insert(CellKey { table, class }, cell, 0)
            .expect("CELLS");
    }

    /// Writes a table's default cell.
    ///
    /// # Panics
    /// Where the map cannot be written.
    pub fn default_cell(&mut self, table: u32, cell: Cell) {
        self.maps.tables.set(table, cell, 0).expect("TABLES");
    }

    /// Makes a port set of ports below 256, in the leaf of the same number.
    ///
    /// # Panics
    /// Where a map cannot be written.
    pub fn ports(&mut self, set: u32, ports: &[u16]) {
        let mut leaf = PortLeaf::default();
        for &port in ports {
            leaf.words[usize::from(port / 64)] |= 1 << (port % 64);
        }
        let mut leaves = [0; 256];
        leaves[0] = set;
        let maps = &mut self.maps;
        maps.port_leaves.set(set, leaf, 0).expect("PORT_LEAVES");
        maps.port_sets
            .set(set, PortSet { leaves }, 0)
            .expect("PORT_SETS");
    }

    /// Writes what is known of an address.
    ///
    /// # Panics
    /// Where the map cannot be written.
    pub fn peer(&mut self, of: IpAddr, peer: Peer) {
        let maps = &mut self.maps;
        match of {
            IpAddr::V4(_) => maps.peers_v4.insert(address(of)[0], peer, 0),
            IpAddr::V6(_) => maps.peers_v6.insert(address(of), peer, 0),
        }
        .expect("PEERS");
    }

    /// Gives a block its class.
    ///
    /// # Panics
    /// Where the map cannot be written.
    pub fn block(&mut self, net: IpNet, class: u32) {
        let maps = &mut self.maps;
        let (length, words) = (u32::from(net.prefix_len()), address(net.addr()));
        match net {
            IpNet::V4(_) => maps.cidrs_v4.insert(&Key::new(length, words[0]), class, 0),
            IpNet::V6(_) => maps.cidrs_v6.insert(&Key::new(length, words), class, 0),
        }
        .expect("CIDRS");
    }

    /// All flows, answered ones first.
    ///
    /// # Panics
    /// Where a map cannot be read.
    #[must_use]
    pub fn flows(&self) -> Vec<(FlowKey, Flow)> {
        let maps = &self.maps;
        [&maps.flows_stream, &maps.flows_datagram, &maps.flows_new]
            .into_iter()
            .flat_map(|map| map.iter())
            .map(|entry| entry.expect("a flow"))
            .collect()
    }

    /// Forgets all flows, and what waits.
    ///
    /// # Panics
    /// Where a map cannot be written.
    pub fn forget(&mut self) {
        let maps = &mut self.maps;
        for map in [
            &mut maps.flows_new,
            &mut maps.flows_stream,
            &mut maps.flows_datagram,
        ] {
            let keys: Vec<FlowKey> = map.keys().map(|key| key.expect("a flow")).collect();
            for key in keys {
                map.remove(&key).expect("removing a flow");
            }
        }
        let waiting: Vec<u32> = maps
            .pending
            .keys()
            .map(|key| key.expect("PENDING"))
            .collect();
        for key in waiting {
            maps.pending.remove(&key).expect("removing what waits");
        }
    }

    /// Makes all flows older by so many seconds.
    ///
    /// # Panics
    /// Where a map cannot be written.
    pub fn age(&mut self, seconds: u32) {
        let jiffies = seconds * self.hz;
        let maps = &mut self.maps;
        for map in [
            &mut maps.flows_new,
            &mut maps.flows_stream,
            &mut maps.flows_datagram,
        ] {
            let flows: Vec<_> = map.iter().map(|entry| entry.expect("a flow")).collect();
            for (key, flow) in flows {
                let seen = flow.seen.wrapping_sub(jiffies);
                map.insert(key, Flow { seen, ..flow }, 0).expect("a flow");
            }
        }
    }

    /// Why the last packet that was dropped since the last call was: slot, direction and reason of its
    /// event.
    pub fn dropped(&mut self) -> Option<(u16, Direction, Reason)> {
        let event = self.events().pop()?;
        let direction = match event.direction {
            0 => Direction::Ingress,
            _ => Direction::Egress,
        };
        Some((event.slot, direction, Reason::from_number(event.reason)?))
    }

    /// The flow of a pod with a remote end.
    #[must_use]
    pub fn flow(
        &self,
        slot: u16,
        local_port: u16,
        remote: IpAddr,
        remote_port: u16,
    ) -> Option<Flow> {
        let remote = address(remote);
        let found = self.flows().into_iter().find(|(key, _)| {
            (key.slot, key.local_port, key.remote, key.remote_port)
                == (slot, local_port, remote, remote_port)
        });
        found.map(|(_, flow)| flow)
    }
}
