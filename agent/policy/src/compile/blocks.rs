//! The trie of blocks: every cidr and every except prefix is a node, and each node knows which peer lists'
//! blocks match the addresses that are in it and in no longer node.
//!
//! That set is the same for all of these addresses: whatever could tell two of them apart is a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    lists::ListId,
    sets::{Set, Sets, Turn},
};
use crate::model::Block;

/// The nodes, by prefix: IPv4 before IPv6, each before all that it contains.
pub(super) struct Blocks(BTreeMap<IpNet, Node>);

/// One node.
#[derive(Default)]
pub(super) struct Node {
    /// The longest node that contains this one.
    parent: Option<IpNet>,
    /// Prefixes of lists that are this one. A root without users is no block, only a place to be.
    users: usize,
    /// The lists whose blocks match here.
    pub(super) lists: Set,
}

/// What a change of blocks moved.
#[derive(Default)]
pub(super) struct Moved {
    /// Nodes that came, went or are matched by other lists.
    pub(super) nodes: BTreeSet<IpNet>,
    /// Nodes that came or went: the addresses in them may be in another node now.
    pub(super) around: BTreeSet<IpNet>,
}

/// The whole of each family.
pub(super) fn roots() -> [IpNet; 2] {
    [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    ]
}

impl Default for Blocks {
    fn default() -> Self {
        Self(roots().map(|root| (root, Node::default())).into())
    }
}

impl Blocks {
    pub(super) fn get(&self, net: &IpNet) -> Option<&Node> {
        self.0.get(net)
    }

    /// Whether the prefix is one of some block.
    pub(super) fn is_used(&self, net: &IpNet) -> bool {
        self.0.get(net).is_some_and(|node| node.users > 0)
    }

    /// The longest node around an address.
    pub(super) fn around(&self, address: IpAddr) -> IpNet {
        self.longest(&IpNet::from(address))
    }

    /// The longest node that contains a prefix, itself included. It is the last node in order up to the
    /// prefix, or one around that.
    pub(super) fn longest(&self, net: &IpNet) -> IpNet {
        let mut candidate = self.0.range(..=*net).next_back();
        while let Some((found, node)) = candidate {
            if found.contains(net) {
                return *found;
            }
            candidate = node.parent.and_then(|parent| self.0.get_key_value(&parent));
        }
        let [v4, v6] = roots();
        if matches!(net, IpNet::V4(_)) { v4 } else { v6 }
    }

    /// Lets these blocks of a list match.
    pub(super) fn place(
        &mut self,
        sets: &mut Sets,
        id: ListId,
        blocks: &[&Block],
        moved: &mut Moved,
    ) {
        for net in prefixes(blocks.iter().copied()) {
            self.join(net, moved);
        }
        self.turn(sets.adding(id), blocks, moved);
    }

    /// Takes back what [`Blocks::place`] did.
    pub(super) fn remove(
        &mut self,
        sets: &mut Sets,
        id: ListId,
        blocks: &[&Block],
        moved: &mut Moved,
    ) {
        self.turn(sets.removing(id), blocks, moved);
        for net in prefixes(blocks.iter().copied()) {
            self.leave(net, moved);
        }
    }

    fn turn(&mut self, mut turn: Turn, blocks: &[&Block], moved: &mut Moved) {
        for block in blocks {
            for (net, node) in inside_mut(&mut self.0, block) {
                if turn.apply(&mut node.lists) {
                    moved.nodes.insert(*net);
                }
            }
        }
    }

    fn join(&mut self, net: IpNet, moved: &mut Moved) {
        if let Some(node) = self.0.get_mut(&net) {
            node.users += 1;
            if node.users == 1 {
                moved.nodes.insert(net);
            }
            return;
        }
        let parent = self.longest(&net);
        let lists = self.0.get(&parent).map(|node| node.lists.clone());
        self.adopt(&net, Some(parent), Some(net));
        let node = Node {
            parent: Some(parent),
            users: 1,
            lists: lists.unwrap_or_default(),
        };
        self.0.insert(net, node);
        moved.nodes.insert(net);
        moved.around.insert(net);
    }

    fn leave(&mut self, net: IpNet, moved: &mut Moved) {
        let Some(node) = self.0.get_mut(&net) else {
            return;
        };
        node.users -= 1;
        if node.users > 0 {
            return;
        }
        moved.nodes.insert(net);
        if let Some(parent) = node.parent {
            self.0.remove(&net);
            self.adopt(&net, Some(net), Some(parent));
            moved.around.insert(net);
        }
    }

    /// Gives the nodes in a prefix that have this parent another one.
    fn adopt(&mut self, net: &IpNet, from: Option<IpNet>, to: Option<IpNet>) {
        for (_, node) in self.0.range_mut(*net..=last(net)) {
            if node.parent == from {
                node.parent = to;
            }
        }
    }
}

/// The last prefix inside this one.
pub(super) fn last(net: &IpNet) -> IpNet {
    IpNet::from(net.broadcast())
}

/// The distinct prefixes of blocks.
pub(super) fn prefixes<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> BTreeSet<IpNet> {
    blocks
        .into_iter()
        .flat_map(|block| block.except.iter().chain([&block.cidr]))
        .copied()
        .collect()
}

/// The nodes in a block: those in its cidr, without what is in its exceptions.
fn inside_mut<'a>(
    nodes: &'a mut BTreeMap<IpNet, Node>,
    block: &'a Block,
) -> impl Iterator<Item = (&'a IpNet, &'a mut Node)> {
    let empty = block
        .except
        .iter()
        .any(|except| except.contains(&block.cidr));
    let mut skipped: Option<IpNet> = None;
    nodes
        .range_mut(block.cidr..=last(&block.cidr))
        .filter(move |(net, _)| {
            if empty || skipped.is_some_and(|skipped| skipped.contains(*net)) {
                return false;
            }
            // In order, an exception comes before all that it contains.
            let excepted = block.except.binary_search(net).is_ok();
            if excepted {
                skipped = Some(**net);
            }
            !excepted
        })
}
