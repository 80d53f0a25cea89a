//! Programs of others on the devices that carry ours, and the order among them.

use std::time::{Duration, Instant};

use palisade_dataplane::{
    link::{attach::Hook, program::Role},
    load,
};

use super::{Drift, Kernel};
use crate::api::proto::Foreign;

/// For how long programs are moved at a time: each has the kernel wait for a grace period, twice.
const MOVING: Duration = Duration::from_millis(500);

impl Kernel {
    /// Has ours run first on the hooks where others have come before. What cannot be moved is told by `status` as before.
    pub(super) fn lead(&mut self, now: Instant, found: &mut Drift) {
        let (programs, roles) = (&self.programs, &self.roles);
        while self.attachments.may_lead(programs, roles, now) {
            if now.elapsed() > MOVING {
                found.more = true;
                return;
            }
            let copies = match self.copies.take() {
                Some(copies) => Ok(copies),
                None => load::copy(
                    load::OBJECT,
                    &self.pins,
                    self.set,
                    &self.entries,
                    self.dataplane.store(),
                ),
            };
            let copies = match copies {
                Ok(copies) => self.copies.insert(copies),
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(
                        error,
                        "others run before ours, which cannot be loaded again"
                    );
                    return;
                }
            };
            match self.attachments.lead(programs, copies, roles, now) {
                Ok(Some(lead)) => {
                    found.positions += 1;
                    let others = lead.overtaken.iter().map(ToString::to_string);
                    let others = others.collect::<Vec<_>>().join(", ");
                    let (ifindex, hook) = (lead.ifindex, lead.hook);
                    tracing::warn!(ifindex, %hook, others, "ours run first again, others had come before");
                    if lead.last {
                        tracing::warn!(ifindex, %hook, "ours were moved often, and are left where they are for a while");
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(error, "others run before ours, which cannot be moved");
                }
            }
        }
    }

    /// How many programs of others run before ours, and can hide packets from them: at XDP, at ingress and at egress.
    pub(in crate::engine) fn before(&self) -> [usize; 3] {
        let at = |hook| {
            let before = self.attachments.before().iter();
            before.filter(|other| other.hook == hook).count()
        };
        let ours = self
            .scan
            .xdp
            .keys()
            .filter(|ifindex| self.roles.get(ifindex) == Some(&Role::Pod));
        [ours.count(), at(Hook::Ingress), at(Hook::Egress)]
    }

    /// Programs of others on the devices that carry ours.
    pub(in crate::engine) fn foreign(&mut self) -> Vec<Foreign> {
        let xdp = self.scan.xdp.iter().map(|(&ifindex, &program)| Foreign {
            ifindex,
            hook: "xdp".to_owned(),
            before: true,
            program: Some(program),
            name: None,
        });
        let mut foreign: Vec<_> = xdp.collect();
        for (&ifindex, &role) in &self.roles {
            match self.attachments.foreign(ifindex, role) {
                Ok(others) => foreign.extend(others.into_iter().map(|other| Foreign {
                    ifindex,
                    hook: other.hook.to_string(),
                    before: other.before,
                    program: other.program,
                    name: other.name,
                })),
                Err(error) => {
                    tracing::debug!(ifindex, %error, "the device's other programs cannot be listed")
                }
            }
        }
        foreign
    }
}
