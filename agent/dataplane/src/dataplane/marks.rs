//! What addresses are besides their class: of a local pod, or likely to be translated.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_common::value::Peer;
use palisade_policy::table::{Change, Compiled};

use crate::plan::goal::Mark;

/// The marks of all addresses that have one.
#[derive(Debug, Default)]
pub(super) struct Marks {
    all: BTreeMap<IpAddr, Mark>,
    changed: BTreeSet<IpAddr>,
    node: BTreeSet<IpAddr>,
    node_changed: BTreeSet<IpAddr>,
    local: BTreeMap<IpAddr, u16>,
}

impl Marks {
    /// The addresses of this node.
    pub(super) fn set_node(&mut self, addresses: BTreeSet<IpAddr>) {
        let other = self.node.symmetric_difference(&addresses).copied();
        self.node_changed.extend(other);
        self.node = addresses;
    }

    /// Brings the marks up to date.
    pub(super) fn update(
        &mut self,
        compiled: &Compiled,
        change: &Change,
        local: BTreeMap<IpAddr, u16>,
        everything: bool,
    ) {
        let mut touched = std::mem::take(&mut self.node_changed);
        touched.extend(&change.services);
        let before = std::mem::replace(&mut self.local, local);
        for address in before.keys().chain(self.local.keys()) {
            if before.get(address) != self.local.get(address) {
                touched.insert(*address);
            }
        }
        if everything {
            touched.extend(self.all.keys());
            touched.extend(&compiled.services);
            touched.extend(&self.node);
            touched.extend(self.local.keys());
        }
        self.changed.clear();
        for address in touched {
            let translated = self.node.contains(&address) || compiled.services.contains(&address);
            let mark = Mark {
                slot: self.local.get(&address).copied().unwrap_or(0),
                flags: if translated { Peer::TRANSLATED } else { 0 },
            };
            let before = if mark == Mark::default() {
                self.all.remove(&address)
            } else {
                self.all.insert(address, mark)
            };
            if before.unwrap_or_default() != mark {
                self.changed.insert(address);
            }
        }
    }

    /// The marks.
    pub(super) fn all(&self) -> &BTreeMap<IpAddr, Mark> {
        &self.all
    }

    /// The addresses whose mark the last update changed.
    pub(super) fn changed(&self) -> &BTreeSet<IpAddr> {
        &self.changed
    }
}
