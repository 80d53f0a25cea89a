//! Which addresses and blocks go from which number to which class.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_common::value::Peer;
use palisade_policy::table::ClassId;

use super::{
    Known,
    goal::{Goal, Scope},
};
use crate::mirror::Mirror;

/// An entry that has a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Item {
    /// An address by itself.
    Address(IpAddr),
    /// All addresses of a block that are in no longer one and not by themselves.
    Block(IpNet),
}

/// An entry that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) item: Item,
    /// Its number at present, by an entry of its own or not.
    pub(super) from: u32,
    /// Its class.
    pub(super) to: ClassId,
    /// It has an entry at present.
    pub(super) present: bool,
    /// It is to have one.
    pub(super) wanted: bool,
}

/// What is in scope and has an entry or is to have one, by item.
pub(super) fn moves(
    mirror: &Mirror,
    known: &Known,
    goal: &Goal<'_>,
    scope: &Scope<'_>,
) -> Vec<Move> {
    let mut moves = Vec::new();
    for address in addresses(mirror, goal, scope) {
        let entry = mirror.peer(&address);
        let wanted = goal.wants(&address);
        if entry.is_none() && !wanted {
            continue;
        }
        let from = entry.map_or_else(|| mirror.class_of(&address), |peer| peer.class);
        let to = goal.class_of(address);
        if settled(known, entry, goal, &address, from, to, wanted) && narrow(scope) {
            continue;
        }
        moves.push(Move {
            item: Item::Address(address),
            from,
            to,
            present: entry.is_some(),
            wanted,
        });
    }
    for net in blocks(mirror, goal, scope) {
        let entry = mirror.blocks().get(&net).copied();
        let wanted = goal.blocks.contains_key(&net);
        if entry.is_none() && !wanted {
            continue;
        }
        let from = entry.unwrap_or_else(|| {
            super::nets::above(mirror.blocks(), net)
                .map_or(palisade_common::value::STRANGER, |(_, &class)| class)
        });
        moves.push(Move {
            item: Item::Block(net),
            from,
            to: goal.class_of_block(net),
            present: entry.is_some(),
            wanted,
        });
    }
    moves
}

/// Every entry of these numbers that is not among the moves: they stay as they are, unless they are named.
pub(super) fn others(
    mirror: &Mirror,
    known: &Known,
    numbers: &HashSet<u32>,
    moves: &[Move],
) -> Vec<Move> {
    let named: HashSet<Item> = moves.iter().map(|known| known.item).collect();
    let addresses = mirror
        .peers()
        .map(|(&address, peer)| (Item::Address(address), peer.class));
    let blocks = mirror
        .blocks()
        .iter()
        .map(|(&net, &class)| (Item::Block(net), class));
    let mut others: Vec<Move> = addresses
        .chain(blocks)
        .filter(|(item, class)| numbers.contains(class) && !named.contains(item))
        .filter_map(|(item, from)| {
            Some(Move {
                item,
                from,
                to: *known.meaning.get(&from)?,
                present: true,
                wanted: true,
            })
        })
        .collect();
    others.sort_unstable_by_key(|other| other.item);
    others
}

fn narrow(scope: &Scope<'_>) -> bool {
    matches!(scope, Scope::Change { .. })
}

fn settled(
    known: &Known,
    entry: Option<&Peer>,
    goal: &Goal<'_>,
    address: &IpAddr,
    from: u32,
    to: ClassId,
    wanted: bool,
) -> bool {
    let mark = goal.mark(address);
    wanted
        && entry.is_some_and(|peer| peer.slot == mark.slot && peer.flags == mark.flags)
        && known.class.get(&to) == Some(&from)
}

fn addresses(mirror: &Mirror, goal: &Goal<'_>, scope: &Scope<'_>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = match scope {
        Scope::Everything => mirror
            .peers()
            .map(|(address, _)| address)
            .chain(goal.compiled.addresses.keys())
            .chain(goal.marks.keys())
            .copied()
            .collect(),
        Scope::Change { compiled, marks } => {
            let mut addresses: Vec<IpAddr> =
                compiled.addresses.iter().chain(*marks).copied().collect();
            // An address that has an entry for its mark alone is of its block's class.
            for net in &compiled.blocks {
                let marked = goal.marks.range(net.network()..=net.broadcast());
                addresses.extend(marked.map(|(address, _)| *address));
            }
            addresses
        }
    };
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn blocks(mirror: &Mirror, goal: &Goal<'_>, scope: &Scope<'_>) -> BTreeSet<IpNet> {
    match scope {
        Scope::Everything => mirror
            .blocks()
            .keys()
            .chain(goal.blocks.keys())
            .copied()
            .collect(),
        Scope::Change { compiled, .. } => compiled.blocks.iter().copied().collect(),
    }
}
