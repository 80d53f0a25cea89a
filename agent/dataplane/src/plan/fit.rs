//! What to leave out where a state does not fit. What is left out is denied more, never less.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_policy::table::{ClassId, Side};

use super::{
    columns::cell_of,
    draft::{Account, Draft},
    goal::{Goal, Unfit},
    nets,
    tables::table_of,
};
use crate::{maps::Capacity, mirror::Mirror};

/// What is done with pods whose new tables do not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOverflow {
    /// They are denied everything.
    #[default]
    Deny,
    /// They keep the last tables that fitted; a pod that had none is denied everything.
    Keep,
}

/// Leaves out the addresses that find no room. Those that have an entry keep it; local pods and addresses
/// of the node and of Services come next.
pub(super) fn leave_out_addresses(mirror: &Mirror, goal: &mut Goal<'_>, capacity: &Capacity) {
    let counts = mirror.counts();
    let mut room = [
        capacity.peers_v4.saturating_sub(counts.peers_v4),
        capacity.peers_v6.saturating_sub(counts.peers_v6),
    ];
    let mut new: Vec<IpAddr> = goal
        .compiled
        .addresses
        .keys()
        .chain(goal.marks.keys())
        .filter(|address| mirror.peer(address).is_none())
        .copied()
        .collect();
    new.sort_unstable_by_key(|address| {
        let mark = goal.marks.get(address);
        (
            mark.is_none_or(|mark| mark.slot == 0),
            mark.is_none(),
            *address,
        )
    });
    new.dedup();
    for address in new {
        let room = &mut room[usize::from(address.is_ipv6())];
        if *room == 0 {
            goal.left_out.insert(address);
        } else {
            *room -= 1;
        }
    }
    close(goal, &[]);
}

/// Leaves out the blocks that find no room. Those that are there keep their place; short ones come next.
pub(super) fn leave_out_blocks(mirror: &Mirror, goal: &mut Goal<'_>, capacity: &Capacity) {
    let counts = mirror.counts();
    let mut room = [
        capacity.nodes_v4().saturating_sub(counts.cidrs_v4),
        capacity.nodes_v6().saturating_sub(counts.cidrs_v6),
    ];
    let mut new: Vec<IpNet> = goal
        .compiled
        .blocks
        .keys()
        .filter(|net| !mirror.blocks().contains_key(net))
        .copied()
        .collect();
    new.sort_unstable_by_key(|net| (net.prefix_len(), *net));
    let mut out = Vec::new();
    for net in new {
        let room = &mut room[usize::from(matches!(net, IpNet::V6(_)))];
        if *room > 0 {
            *room -= 1;
        } else {
            out.push(net);
        }
    }
    close(goal, &out);
}

/// Leaves out one address, which has no entry; `false` if it is left out already.
pub(super) fn leave_out_address(goal: &mut Goal<'_>, address: IpAddr) -> bool {
    let new = goal.left_out.insert(address);
    close(goal, &[]);
    new
}

/// Leaves out one block, which has no entry; `false` if it is left out already.
pub(super) fn leave_out_block(goal: &mut Goal<'_>, net: IpNet) -> bool {
    let new = goal.blocks.contains_key(&net);
    close(goal, &[net]);
    new
}

/// Removes blocks. What is left out gets the class of the block around it; where that one may do anything that the
/// other may not, it is made a stranger's, who may do what everybody may.
fn close(goal: &mut Goal<'_>, out: &[IpNet]) {
    let compiled = goal.compiled;
    let mut blocks = std::mem::take(goal.blocks.to_mut());
    for net in out {
        blocks.remove(net);
    }
    let nets = compiled.blocks.iter();
    let nets = nets
        .filter(|(net, _)| !blocks.contains_key(net))
        .filter_map(|(net, class)| Some((*nets::above(&blocks, *net)?.0, *class)));
    let addresses = goal.left_out.iter().filter_map(|address| {
        let class = compiled.addresses.get(address)?;
        Some((*nets::around(&blocks, *address)?.0, *class))
    });
    let covered: Vec<(IpNet, ClassId)> = nets.chain(addresses).collect();
    let mut within: HashMap<(ClassId, ClassId), bool> = HashMap::new();
    for (around, class) in covered {
        let of = blocks.get(&around).copied().unwrap_or(ClassId::STRANGER);
        let safe = *within.entry((of, class)).or_insert_with(|| {
            let mut tables = compiled.tables.values();
            tables.all(|table| cell_of(table, of).is_subset(cell_of(table, class)))
        });
        if !safe {
            blocks.insert(around, ClassId::STRANGER);
        }
    }
    goal.blocks = Cow::Owned(blocks);
}

/// Leaves out the tables that cost most, until what is over is made up for. `false` if there is none left.
pub(super) fn leave_out_tables(
    draft: &Draft<'_>,
    goal: &mut Goal<'_>,
    over: u32,
    on_overflow: OnOverflow,
) -> bool {
    let mut any = false;
    for &account in &draft.homeless {
        any |= leave_out(draft.mirror, goal, account, on_overflow);
    }
    let mut charged: Vec<(Account, u32)> = draft
        .charged
        .iter()
        .map(|(&account, &cells)| (account, cells))
        .collect();
    charged.sort_by_key(|&(account, cells)| (Reverse(cells), account));
    let mut relieved = 0;
    for (account, cells) in charged {
        if relieved >= over {
            break;
        }
        if leave_out(draft.mirror, goal, account, on_overflow) {
            relieved += cells;
            any = true;
        }
    }
    any
}

/// Takes one step further with what an account stands for: its pods keep what they have, or are denied.
pub(super) fn leave_out(
    mirror: &Mirror,
    goal: &mut Goal<'_>,
    account: Account,
    on_overflow: OnOverflow,
) -> bool {
    match account {
        Account::Table(table) => {
            let next = match (goal.unfit.get(&table), on_overflow) {
                (None, OnOverflow::Keep) => Unfit::Keep,
                (None, OnOverflow::Deny) | (Some(Unfit::Keep), _) => Unfit::Deny,
                (Some(Unfit::Deny), _) => return false,
            };
            goal.unfit.insert(table, next);
            true
        }
        Account::Present(number) => {
            let mut any = false;
            for (&slot, value) in mirror.slots() {
                if Side::ALL
                    .iter()
                    .any(|side| table_of(value, *side) == number)
                {
                    any |= goal.denied.insert(slot);
                }
            }
            any
        }
    }
}

/// The addresses and blocks of a goal that are left out.
pub(super) fn left_out(goal: &Goal<'_>) -> (BTreeSet<IpAddr>, Vec<IpNet>) {
    let blocks = goal
        .compiled
        .blocks
        .iter()
        .filter(|&(net, class)| goal.blocks.get(net) != Some(class))
        .map(|(net, _)| *net)
        .collect();
    (goal.left_out.clone(), blocks)
}
