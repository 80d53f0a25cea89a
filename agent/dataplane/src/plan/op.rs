//! Effects as data: every write to the maps that hold verdicts.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use palisade_common::value::{Cell, Config, Peer, PortLeaf, Slot};
use palisade_policy::table::PortSet;

/// One write. The kernel sees each as a whole, except that the words of [`Slot`] and of a default
/// cell are seen one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a leaf that no set in use refers to.
    Leaf {
        /// Index into `PORT_LEAVES`.
        leaf: u32,
        /// Its ports.
        ports: PortLeaf,
    },
    /// Writes a port set that no cell in use refers to.
    Set {
        /// Index into `PORT_SETS`.
        set: u32,
        /// What the leaves hold.
        ports: PortSet,
        /// Places and numbers of the leaves that hold any port, by place.
        leaves: Box<[(u8, u32)]>,
    },
    /// Writes or removes what a class may do against a table.
    Cell {
        /// The table.
        table: u32,
        /// The class, never the stranger's.
        class: u32,
        /// `None` leaves it to the default cell.
        cell: Option<Cell>,
    },
    /// Writes the default cell of a table.
    Default {
        /// The table.
        table: u32,
        /// The cell.
        cell: Cell,
    },
    /// Writes or removes what is known of an address.
    Peer {
        /// The address.
        address: IpAddr,
        /// `None` leaves it to the blocks.
        peer: Option<Peer>,
    },
    /// Writes or removes a block.
    Block {
        /// The block, without host bits.
        net: IpNet,
        /// `None` leaves its addresses to the next longer block around them.
        class: Option<u32>,
    },
    /// Writes a slot.
    Slot {
        /// The slot.
        slot: u16,
        /// All zero frees it.
        value: Slot,
    },
    /// Writes the configuration.
    Config(Config),
}

/// Which part of an update a write belongs to; see [`crate::plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Pods whose state cannot be held are denied.
    Deny,
    /// What no program can reach yet is written.
    Prepare,
    /// Addresses and blocks move to numbers that mean what they meant, or less.
    Refine,
    /// Tables allow what both states allow.
    Narrow,
    /// Tables allow what the new state allows.
    Widen,
    /// Addresses and blocks move straight to their class, where no table changes.
    Move,
    /// New slots, and what addresses say of them.
    Settle,
    /// The revision moves.
    Revise,
    /// Numbers that mean the same become one; what says nothing is removed.
    Coarsen,
    /// What has rested is freed.
    Collect,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf { leaf, .. } => write!(f, "leaf {leaf}"),
            Self::Set { set, ports, .. } => {
                write!(f, "port set {set} =")?;
                let mut between = " ";
                for (first, last) in ports.ranges() {
                    if first == last {
                        write!(f, "{between}{first}")?;
                    } else {
                        write!(f, "{between}{first}-{last}")?;
                    }
                    between = ",";
                }
                Ok(())
            }
            Self::Cell { table, class, cell } => {
                write!(f, "table {table} class {class} = ")?;
                match cell {
                    Some(cell) => write_cell(f, cell),
                    None => f.write_str("default"),
                }
            }
            Self::Default { table, cell } => {
                write!(f, "table {table} default = ")?;
                write_cell(f, cell)
            }
            Self::Peer {
                address,
                peer: Some(peer),
            } => write!(
                f,
                "address {address} = class {} slot {} flags {}",
                peer.class, peer.slot, peer.flags
            ),
            Self::Peer {
                address,
                peer: None,
            } => write!(f, "address {address} = none"),
            Self::Block {
                net,
                class: Some(class),
            } => write!(f, "block {net} = class {class}"),
            Self::Block { net, class: None } => write!(f, "block {net} = none"),
            Self::Slot { slot, value } => write!(
                f,
                "slot {slot} = interface {} ingress {} egress {}, audited {} and {}",
                value.ifindex,
                value.ingress,
                value.egress,
                value.audited_ingress,
                value.audited_egress
            ),
            Self::Config(config) => write!(f, "revision = {}", config.revision),
        }
    }
}

fn write_cell(f: &mut fmt::Formatter<'_>, cell: &Cell) -> fmt::Result {
    if cell.flags & Cell::ALL_PROTOCOLS != 0 {
        return f.write_str("all");
    }
    write!(f, "tcp {} udp {} sctp {}", cell.tcp, cell.udp, cell.sctp)
}
