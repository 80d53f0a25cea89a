//! What the maps say to a question, beside what policy says. The maps themselves are read, and not what is known of them: others may
//! have changed them.

use std::net::IpAddr;

use anyhow::Context as _;
use palisade_policy::{
    model::Name,
    table::{Direction, Traffic},
};

use super::Engine;
use crate::{
    api::proto::{Answer, Failure, Live, Side},
    explain::{
        Query, answer,
        live::{asked, difference, found},
    },
};

impl Engine {
    /// Answers a question from policy.
    pub(super) fn explain(&self, query: &Query) -> Result<Answer, Failure> {
        if self.synced {
            return answer(self.compiler.index(), &self.nodes, query);
        }
        let error = "the agent does not know all objects yet".to_owned();
        Err(Failure { error })
    }

    /// The same, and reads what the maps say. Nothing may be due: the maps say what policy said before.
    pub(super) fn explain_live(&self, query: &Query) -> Result<Answer, Failure> {
        let mut answer = self.explain(query)?;
        for explanation in answer.explanations_mut() {
            let asked = asked(explanation);
            let (from, to) = (explanation.from.address, explanation.to.address);
            for (direction, side, peer) in [
                (Direction::Egress, &mut explanation.egress, to),
                (Direction::Ingress, &mut explanation.ingress, from),
            ] {
                if let Some(side) = side {
                    side.live = Some(self.read_maps(side, direction, peer, asked));
                }
            }
        }
        Ok(answer)
    }

    /// Reads what the maps say for one end.
    fn read_maps(
        &self,
        side: &Side,
        direction: Direction,
        peer: Option<IpAddr>,
        asked: Option<Traffic>,
    ) -> Live {
        let name = Name::new(side.namespace.as_str(), side.pod.as_str());
        let live = Live {
            node: self.node.to_string(),
            found: None,
            differs: None,
            unknown: None,
        };
        let unknown = |reason: String| Live {
            unknown: Some(reason),
            ..live.clone()
        };
        let pod = self.compiler.index().pod(&name);
        match pod.and_then(|pod| pod.node.as_deref()) {
            Some(node) if *node == *self.node => {}
            Some(node) => return unknown(format!("it is on node {node}: ask the agent there")),
            None => return unknown("it is on no node yet".to_owned()),
        }
        let Some(peer) = peer else {
            return unknown("the address of the other end is not known".to_owned());
        };
        let state = self.pods.get(&name);
        let interface = state.and_then(|state| state.interface.as_ref());
        let (slot, interface) = match (state.map(|state| &state.enforced), interface) {
            (Some(Ok(slot)), Some(interface)) => (*slot, interface),
            (Some(Err(reason)), _) if side.policies.len() > side.audited.len() => {
                let differs = Some(format!("it is not enforced: {reason}"));
                return Live { differs, ..live };
            }
            (Some(Err(reason)), _) => return unknown(format!("it has no slot: {reason}")),
            _ => return unknown("its update is under way".to_owned()),
        };
        let read = self
            .kernel
            .look_up(slot, interface.ifindex, direction, peer);
        let (known, lookup) = match read.context("the maps cannot be read") {
            Ok(read) => read,
            Err(error) => return unknown(format!("{error:#}")),
        };
        let device = &interface.name;
        let found = found(slot, &lookup, asked);
        let differs = match () {
            () if known != slot => Some(match known {
                0 => format!("the maps do not know its device {device}"),
                other => format!("its device {device} leads to slot {other} in the maps"),
            }),
            () if lookup.slot.ifindex != interface.ifindex => Some(format!(
                "its slot is not of its device {device} in the maps"
            )),
            () => difference(side, &found, asked),
        };
        Live {
            found: Some(found),
            differs,
            ..live
        }
    }
}
