//! What to leave out where a state does not fit. What is left out is denied more, never less.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_policy::table::ClassId;

use super::{
    columns::cell_of,
    draft::{Account, Draft},
    goal::{Goal, Target, Unfit},
    nets,
    tables::{DIRECTIONS, table_of},
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
}

/// Leaves out the blocks that find no room. The addresses of one then get the class of the next around it; where
/// that one may do anything they may not, it is made a stranger's.
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
    remove_blocks(goal, &out);
}

/// Leaves out one block; `false` if it is not there.
pub(super) fn leave_out_block(goal: &mut Goal<'_>, net: IpNet) -> bool {
    remove_blocks(goal, &[net])
}

fn remove_blocks(goal: &mut Goal<'_>, out: &[IpNet]) -> bool {
    let compiled = goal.compiled;
    let blocks = goal.blocks.to_mut();
    let removed: Vec<(IpNet, ClassId)> = out
        .iter()
        .filter_map(|net| Some((*net, blocks.remove(net)?)))
        .collect();
    let mut within: HashMap<(ClassId, ClassId), bool> = HashMap::new();
    for &(net, class) in &removed {
        let Some((&around, &of)) = nets::above(blocks, net) else {
            continue;
        };
        let safe = *within.entry((of, class)).or_insert_with(|| {
            compiled
                .tables
                .values()
                .all(|table| cell_of(table, of).is_subset(cell_of(table, class)))
        });
        if !safe {
            blocks.insert(around, ClassId::STRANGER);
        }
    }
    !removed.is_empty()
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
                for direction in DIRECTIONS {
                    if table_of(value, direction) != number {
                        continue;
                    }
                    let Some(placed) = goal.placed.get(&slot) else {
                        any |= goal.denied.insert(slot);
                        continue;
                    };
                    if let Target::Table(table) = placed.target(direction) {
                        any |= goal.unfit.insert(table, Unfit::Deny) != Some(Unfit::Deny);
                    }
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
