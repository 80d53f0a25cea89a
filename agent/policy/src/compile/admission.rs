//! Which blocks fit.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::{
    blocks::prefixes,
    lists::{Lists, PeerList},
    policies::Policies,
};
use crate::{model::Block, table::Direction};

/// The blocks that do not fit, because the trie cannot hold more nodes.
#[derive(Default)]
pub(super) struct Admission {
    limit: usize,
    /// The prefixes that lists want, and how many lists.
    wanted: HashMap<IpNet, usize>,
    size: Size,
    refused: HashSet<Block>,
}

/// A number of nodes of each family.
#[derive(Clone, Copy, Default)]
struct Size {
    v4: usize,
    v6: usize,
}

impl Size {
    fn of(&mut self, net: &IpNet) -> &mut usize {
        match net {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }

    fn fits(self, limit: usize) -> bool {
        self.v4 <= limit && self.v6 <= limit
    }
}

impl Admission {
    /// Room for that many nodes of each family.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// The blocks of a list that fit.
    pub(super) fn admitted<'a>(&self, list: &'a PeerList) -> Vec<&'a Block> {
        let blocks = list.blocks();
        blocks.filter(|block| !self.refuses(block)).collect()
    }

    /// The blocks of a list that fitted before these were decided otherwise.
    pub(super) fn admitted_before<'a>(
        &self,
        list: &'a PeerList,
        turned: &HashSet<Block>,
    ) -> Vec<&'a Block> {
        let blocks = list.blocks();
        blocks
            .filter(|block| self.refuses(block) == turned.contains(block))
            .collect()
    }

    /// Whether the block does not fit.
    pub(super) fn refuses(&self, block: &Block) -> bool {
        self.refused.contains(block)
    }

    /// How many blocks do not fit.
    pub(super) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Whether some block does not fit.
    pub(super) fn refuses_any(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Counts the prefixes of a list that came.
    pub(super) fn want(&mut self, list: &PeerList) {
        for net in prefixes(list.blocks()) {
            let wants = self.wanted.entry(net).or_default();
            if *wants == 0 {
                *self.size.of(&net) += 1;
            }
            *wants += 1;
        }
    }

    /// Counts out the prefixes of a list that went.
    pub(super) fn unwant(&mut self, list: &PeerList) {
        for net in prefixes(list.blocks()) {
            if let Some(wants) = self.wanted.get_mut(&net) {
                *wants -= 1;
                if *wants == 0 {
                    self.wanted.remove(&net);
                    *self.size.of(&net) -= 1;
                }
            }
        }
    }

    /// Decides again which blocks fit: by the policies' names and the order of their rules, each block whole
    /// or not at all. Returns those about which the decision changed.
    pub(super) fn decide(&mut self, policies: &Policies, lists: &Lists) -> HashSet<Block> {
        let mut refused = HashSet::new();
        if !self.size.fits(self.limit) {
            let mut size = Size::default();
            let mut admitted = HashSet::new();
            let rules = policies.live().flat_map(|live| {
                [Direction::Ingress, Direction::Egress]
                    .into_iter()
                    .filter_map(|direction| live.rules(direction))
                    .flatten()
            });
            let lists = rules.filter_map(|rule| lists.get(rule.list?));
            for block in lists.flat_map(|list| list.blocks()) {
                let mut needed = prefixes([block]);
                needed.retain(|net| !admitted.contains(net));
                let mut with = size;
                for net in &needed {
                    *with.of(net) += 1;
                }
                if with.fits(self.limit) {
                    size = with;
                    admitted.extend(needed);
                    refused.remove(block);
                } else {
                    refused.insert(block.clone());
                }
            }
        }
        let moved = refused.symmetric_difference(&self.refused);
        let moved = moved.cloned().collect();
        self.refused = refused;
        moved
    }
}
