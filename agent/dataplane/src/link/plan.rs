//! From what is attached and what is wanted to the steps between, in an order in which every prefix is
//! safe. Pure.

use std::collections::BTreeMap;

use crate::{
    link::{
        attach::Attached,
        program::{Program, Role},
    },
    netlink::Hook,
};

/// A change of one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) ifindex: u32,
    pub(super) hook: Hook,
    pub(super) change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Attach the program, in the place of the one that is there.
    Put(Program),
    /// Take away what is there.
    Remove,
}

/// The steps. `id` is the kernel's id of a program.
pub(super) fn plan(
    attached: &Attached,
    wanted: &BTreeMap<u32, Role>,
    id: impl Fn(Program) -> u32,
) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (&ifindex, role) in wanted {
        for hook in [Hook::Egress, Hook::Ingress] {
            let Some(program) = role.program(hook) else {
                continue;
            };
            if attached.get(&(ifindex, hook)) != Some(&id(program)) {
                steps.push(Step {
                    ifindex,
                    hook,
                    change: Change::Put(program),
                });
            }
        }
    }
    let unwanted = attached.keys().filter(|(ifindex, hook)| {
        wanted
            .get(ifindex)
            .is_none_or(|role| role.program(*hook).is_none())
    });
    steps.extend(unwanted.map(|&(ifindex, hook)| Step {
        ifindex,
        hook,
        change: Change::Remove,
    }));
    steps.sort_by_key(|step| {
        let phase = match (step.change, step.hook) {
            (Change::Put(_), Hook::Egress) => 0,
            (Change::Put(_), Hook::Ingress) => 1,
            (Change::Remove, Hook::Ingress) => 2,
            (Change::Remove, Hook::Egress) => 3,
        };
        (phase, step.ifindex)
    });
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::{Put, Remove};
    use Hook::{Egress, Ingress};
    use Program::{FromPod, ToPod, ToWire};

    fn id(program: Program) -> u32 {
        match program {
            FromPod => 101,
            ToPod => 102,
            ToWire => 103,
        }
    }

    fn steps(attached: &[((u32, Hook), u32)], wanted: &[(u32, Role)]) -> Vec<(u32, Hook, Change)> {
        let attached = attached.iter().copied().collect();
        let wanted = wanted.iter().copied().collect();
        plan(&attached, &wanted, id)
            .into_iter()
            .map(|step| (step.ifindex, step.hook, step.change))
            .collect()
    }

    #[test]
    fn exits_come_before_ingress() {
        assert_eq!(
            steps(&[], &[(2, Role::Exit), (5, Role::Pod), (6, Role::Pod)]),
            [
                (2, Egress, Put(ToWire)),
                (5, Egress, Put(ToPod)),
                (6, Egress, Put(ToPod)),
                (5, Ingress, Put(FromPod)),
                (6, Ingress, Put(FromPod)),
            ]
        );
    }

    #[test]
    fn what_is_in_place_is_left_alone() {
        let attached = [((2, Egress), 103), ((5, Egress), 102), ((5, Ingress), 101)];
        assert_eq!(steps(&attached, &[(2, Role::Exit), (5, Role::Pod)]), []);
    }

    #[test]
    fn programs_of_a_predecessor_are_replaced() {
        let attached = [((2, Egress), 93), ((5, Egress), 92), ((5, Ingress), 91)];
        assert_eq!(
            steps(&attached, &[(2, Role::Exit), (5, Role::Pod)]),
            [
                (2, Egress, Put(ToWire)),
                (5, Egress, Put(ToPod)),
                (5, Ingress, Put(FromPod)),
            ]
        );
    }

    #[test]
    fn an_exit_that_turns_into_a_pod_changes_its_egress_in_one_step() {
        assert_eq!(
            steps(&[((5, Egress), 103)], &[(5, Role::Pod)]),
            [(5, Egress, Put(ToPod)), (5, Ingress, Put(FromPod))]
        );
    }

    #[test]
    fn a_pod_that_turns_into_an_exit_loses_its_ingress_last() {
        let attached = [((5, Egress), 102), ((5, Ingress), 101)];
        assert_eq!(
            steps(&attached, &[(5, Role::Exit), (7, Role::Pod)]),
            [
                (5, Egress, Put(ToWire)),
                (7, Egress, Put(ToPod)),
                (7, Ingress, Put(FromPod)),
                (5, Ingress, Remove),
            ]
        );
    }

    #[test]
    fn a_device_that_is_not_wanted_loses_ingress_before_egress() {
        let attached = [((5, Egress), 102), ((5, Ingress), 101)];
        assert_eq!(
            steps(&attached, &[]),
            [(5, Ingress, Remove), (5, Egress, Remove)]
        );
    }
}
