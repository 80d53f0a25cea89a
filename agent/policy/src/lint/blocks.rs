//! Blocks that hold pods. What pods have for addresses is theirs for an hour, and other network plugins do not look at
//! blocks for them at all.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    evaluate::rules,
    index::{Index, Pod},
    model::{Block, Key, Peer, Peers},
    table::Direction,
};

use super::{Finding, problem::Problem};

pub(super) fn check(index: &Index, findings: &mut Vec<Finding>) {
    let pods = index.pods().filter(|pod| pod.counts());
    let mut addresses: Vec<_> = pods
        .flat_map(|pod| pod.addresses.iter().map(move |address| (*address, pod)))
        .collect();
    addresses.sort_unstable_by_key(|(address, _)| *address);
    for policy in index.policies() {
        for (direction, ends) in [(Direction::Ingress, "from"), (Direction::Egress, "to")] {
            let rules = rules(policy, direction)
                .unwrap_or_default()
                .iter()
                .enumerate();
            for (at, rule) in rules {
                let Peers::Of(peers) = &rule.peers else {
                    continue;
                };
                for (place, peer) in peers.iter().enumerate() {
                    if let Peer::Block(block) = peer
                        && let Some((pod, count)) = held(block, &addresses)
                    {
                        findings.push(Finding {
                            object: Key::Policy(policy.name.clone()),
                            field: format!("spec.{direction}[{at}].{ends}[{place}].ipBlock"),
                            problem: Problem::BlockHoldsPods {
                                cidr: block.cidr,
                                pod: pod.name.clone(),
                                addresses: count,
                            },
                        });
                    }
                }
            }
        }
    }
}

/// One of the pods in a block, and how many addresses of pods it holds. The addresses are sorted.
fn held<'a>(block: &Block, addresses: &[(IpAddr, &'a Arc<Pod>)]) -> Option<(&'a Arc<Pod>, usize)> {
    let within = |net: &IpNet| {
        let first = addresses.partition_point(|(address, _)| *address < net.network());
        let end = addresses.partition_point(|(address, _)| *address <= net.broadcast());
        first..end.max(first)
    };
    let inside = within(&block.cidr);
    // Exceptions may lie in each other.
    let except = IpNet::aggregate(&block.except);
    let outside: usize = except.iter().map(|net| within(net).len()).sum();
    let count = inside.len().saturating_sub(outside);
    if count == 0 {
        return None;
    }
    let mut pods = addresses[inside].iter();
    let (_, pod) = pods.find(|(address, _)| block.contains(address))?;
    Some((pod, count))
}
