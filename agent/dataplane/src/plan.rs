//! From the present to the desired state: an ordered list of writes, every prefix of which leaves verdicts right.
//!
//! Right is: allowed only what the old or the new state allows, denied only what the old or the new state
//! denies. Between two local pods the egress of one and the ingress of the other must both allow, so no table may
//! allow more before every table allows no more than what both states allow:
//!
//! 1. *Refine.* While the update runs, a class is the pair of a present number and a new meaning. Pairs that are not
//!    the largest part of their number get a new one, whose cells come from the present number's.
//! 2. *Narrow.* Every table to what both states allow. A slot that changes tables goes to one that
//!    allows what its old and its new one both allow.
//! 3. *Widen.* Every table to what the new state allows.
//! 4. *Coarsen.* Numbers of one meaning become one, cells that say what the default says go. What is no
//!    longer referred to is freed later, for programs in flight may hold it.
//!
//! Nothing here touches the kernel. The numbers that a plan takes are noted in the ledger, and rest if it is not
//! carried out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_common::value::STRANGER;
use palisade_policy::table::{ClassId, TableId};

use crate::{encode::ledger::Ledger, maps::Capacity, mirror::Mirror};

use self::{
    classes::Pairs,
    direct::Direct,
    draft::{Account, Draft},
    goal::{Goal, Scope},
    moves::moves,
    op::{Op, Phase},
    tables::Tables,
};

pub use self::fit::OnOverflow;

mod classes;
mod columns;
mod direct;
mod draft;
mod fit;
mod general;
pub mod goal;
mod moves;
pub(crate) mod nets;
pub mod op;
pub(crate) mod tables;

/// A write and the part of the update it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The part.
    pub phase: Phase,
    /// The write.
    pub op: Op,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.phase, self.op)
    }
}

/// Which number each class and table of the compiler has. Not part of the present: a successor finds it anew
/// by what is of which number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) class: HashMap<ClassId, u32>,
    pub(crate) meaning: HashMap<u32, ClassId>,
    pub(crate) table: HashMap<TableId, u32>,
}

/// What is not as the compiled state says, for want of room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Addresses without an entry: they are of the class of the block around them.
    pub addresses: BTreeSet<IpAddr>,
    /// Blocks without an entry, or made a stranger's.
    pub blocks: Vec<IpNet>,
    /// Tables whose pods are denied, or keep what they have.
    pub tables: BTreeSet<TableId>,
    /// Slots that are denied because the way to their tables does not fit.
    pub slots: BTreeSet<u16>,
    /// Tables with a port set that found no room, and is empty instead.
    pub port_sets: BTreeSet<TableId>,
}

impl LeftOut {
    /// Whether all is as the compiled state says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An update.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) left_out: LeftOut,
    /// The number of each class that something was or is of, and of each table in use, once all is done.
    pub(crate) classes: HashMap<ClassId, u32>,
    pub(crate) tables: BTreeMap<TableId, u32>,
    /// Numbers that may mean something else now.
    pub(crate) unsettled: Vec<u32>,
    pub(crate) everything: bool,
    accounts: HashMap<u32, Account>,
}

/// Plans an update.
pub(crate) fn plan(
    mirror: &Mirror,
    ledger: &mut Ledger,
    known: &Known,
    mut goal: Goal<'_>,
    scope: Scope<'_>,
    capacity: &Capacity,
    on_overflow: OnOverflow,
) -> Plan {
    let mut scope = scope;
    let nothing = Known::default();
    loop {
        ledger.begin();
        let known = match scope {
            Scope::Everything => &nothing,
            Scope::Change { .. } => known,
        };
        let mut draft = Draft::new(mirror, ledger);
        let Some(outcome) = attempt(&mut draft, known, &goal, &scope) else {
            ledger.undo();
            scope = Scope::Everything;
            continue;
        };
        let excess = draft.excess(capacity);
        let (fewer_addresses, fewer_blocks) = (
            excess.addresses && goal.left_out.is_empty(),
            excess.blocks && !goal.fewer_blocks,
        );
        let fewer_tables = (excess.cells > 0 || !draft.homeless.is_empty())
            && fit::leave_out_tables(&draft, &mut goal, excess.cells, on_overflow);
        if fewer_addresses {
            fit::leave_out_addresses(mirror, &mut goal, capacity);
        }
        if fewer_blocks {
            goal.fewer_blocks = true;
            fit::leave_out_blocks(mirror, &mut goal, capacity);
        }
        if fewer_tables || fewer_addresses || fewer_blocks {
            ledger.undo();
            scope = Scope::Everything;
            continue;
        }
        let (addresses, blocks) = fit::left_out(&goal);
        return Plan {
            left_out: LeftOut {
                addresses,
                blocks,
                tables: goal.unfit.keys().copied().collect(),
                slots: goal.denied,
                port_sets: emptied(&draft),
            },
            accounts: draft.accounts,
            steps: draft.steps,
            classes: outcome.classes,
            tables: outcome.tables,
            unsettled: outcome.unsettled,
            everything: matches!(scope, Scope::Everything),
        };
    }
}

impl Plan {
    /// Leaves out of the goal what a failed write was for. `false` where nothing can be left out for it.
    pub(crate) fn leave_out(
        &self,
        mirror: &Mirror,
        goal: &mut Goal<'_>,
        failed: &Op,
        on_overflow: OnOverflow,
    ) -> bool {
        match failed {
            Op::Cell { table, .. } => {
                let account = self.accounts.get(table).copied();
                let account = account.unwrap_or(Account::Present(*table));
                fit::leave_out(mirror, goal, account, on_overflow)
            }
            Op::Peer { address, .. } => {
                mirror.peer(address).is_none() && fit::leave_out_address(goal, *address)
            }
            Op::Block { net, .. } => {
                !mirror.blocks().contains_key(net) && fit::leave_out_block(goal, *net)
            }
            Op::Leaf { .. }
            | Op::Set { .. }
            | Op::Default { .. }
            | Op::Slot { .. }
            | Op::Config(_) => false,
        }
    }
}

/// The tables of a draft that have a cell whose port set did not fit.
fn emptied(draft: &Draft<'_>) -> BTreeSet<TableId> {
    let accounts = draft.emptied.iter();
    accounts
        .filter_map(|account| match account {
            Account::Table(table) => Some(*table),
            Account::Present(_) => None,
        })
        .collect()
}

struct Outcome {
    classes: HashMap<ClassId, u32>,
    tables: BTreeMap<TableId, u32>,
    unsettled: Vec<u32>,
}

/// Plans for what fits so far. `None` where what is known does not explain the present.
fn attempt(
    draft: &mut Draft<'_>,
    known: &Known,
    goal: &Goal<'_>,
    scope: &Scope<'_>,
) -> Option<Outcome> {
    let mirror = draft.mirror;
    let moves = moves(mirror, known, goal, scope);
    let tables = Tables::settle(draft, known, goal);
    let unsettled = moves.iter().map(|m| m.from).collect();
    let direct = Direct::find(mirror, known, goal, scope, &tables, &moves);
    let cheap = direct.as_ref().is_some_and(|direct| direct.cost <= CHEAP);
    let classes = if cheap {
        direct?.write(draft, goal, &tables, &moves)?
    } else {
        let pairs = Pairs::count(mirror, known, scope, moves.clone()).ok()?;
        match direct {
            Some(direct) if direct.cost <= pairs.cost(tables.roles.len()) => {
                direct.write(draft, goal, &tables, &moves)?
            }
            _ => {
                let classes = pairs.number(draft.ledger)?;
                general::write(draft, known, goal, scope, &classes, &tables);
                classes.settled()
            }
        }
    };
    Some(Outcome {
        classes,
        tables: tables.number,
        unsettled,
    })
}

/// Writes that are not worth comparing with another way.
const CHEAP: usize = 64;

impl Known {
    /// Takes note of an update that was carried out.
    pub(crate) fn note(&mut self, plan: &Plan, mirror: &Mirror) {
        if plan.everything {
            *self = Self::default();
        }
        let again: HashSet<u32> = plan.classes.values().copied().collect();
        for number in plan.unsettled.iter().chain(&again) {
            let gone = again.contains(number) || mirror.counts().items(*number) == 0;
            if gone && let Some(class) = self.meaning.remove(number) {
                self.class.remove(&class);
            }
        }
        for (&class, &number) in &plan.classes {
            if number != STRANGER && mirror.counts().items(number) > 0 {
                if let Some(before) = self.class.insert(class, number) {
                    self.meaning.remove(&before);
                }
                self.meaning.insert(number, class);
            }
        }
        self.table = plan
            .tables
            .iter()
            .map(|(&table, &number)| (table, number))
            .collect();
    }
}
