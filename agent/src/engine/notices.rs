//! What users must know of their policies, and would not look for here: it is said on the policies themselves, and on what
//! found no room.

use palisade_policy::{
    model::{self, Name},
    table::Direction,
};

use super::{Engine, modes::time, seconds, status::isolating};
use crate::source::{Key, Kind, Notice};

impl Engine {
    /// Tells whoever says it, if it is other than before.
    pub(super) fn tell_notices(&mut self) {
        let notices = self.notices();
        self.notices.send_if_modified(|told| {
            let modified = *told != notices;
            if modified {
                *told = notices;
            }
            modified
        });
    }

    fn notices(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for issue in &*self.issues {
            if let Some(key) = issue.object.as_ref().filter(|key| key.kind == Kind::Policy) {
                notices.push(Notice {
                    about: key.clone(),
                    uid: None,
                    reason: "PolicyInvalid",
                    note: format!("{}: {}; {}", issue.field, issue.problem, issue.effect),
                });
            }
        }
        let index = self.compiler.index();
        let left_out = self.left_out.issues.iter().cloned();
        for issue in self.compiler.issues().into_iter().chain(left_out) {
            let room = issue.problem.is_want_of_room();
            let (about, uid, reason) = match issue.object {
                model::Key::Policy(policy) if room => (of(&policy), None, "PolicyDoesNotFit"),
                model::Key::Policy(policy) => (of(&policy), None, "UnknownPort"),
                model::Key::Pod(pod) if room => {
                    let uid = index.pod(&pod).map(|pod| pod.uid.clone());
                    (Key::new(Kind::Pod, pod), uid, "DoesNotFit")
                }
                model::Key::Service(service) if room => {
                    (Key::new(Kind::Service, service), None, "DoesNotFit")
                }
                _ => continue,
            };
            notices.push(Notice {
                about,
                uid,
                reason,
                note: format!("{}: {}", issue.field, issue.problem),
            });
        }
        let (_, unenforced) = self.pods.count();
        for name in unenforced {
            let why = self
                .pods
                .get(name)
                .and_then(|pod| pod.enforced.as_ref().err());
            let (Some(pod), Some(why)) = (index.pod(name), why) else {
                continue;
            };
            for direction in [Direction::Ingress, Direction::Egress] {
                for policy in isolating(index, pod, direction) {
                    notices.push(Notice {
                        about: of(&policy.name),
                        uid: None,
                        reason: "PolicyNotEnforced",
                        note: format!("not in force for pod {name} on node {}: {why}", self.node),
                    });
                }
            }
        }
        if let Some(until) = self.modes.paused_until(seconds()).and_then(time) {
            notices.push(Notice {
                about: Key::new(Kind::Node, Name::new("", self.node.clone())),
                uid: None,
                reason: "Paused",
                note: format!("until {until} no policy denies anything on this node"),
            });
        }
        for namespace in self.modes.namespaces() {
            let until = namespace.mode_until.and_then(time);
            let until = until.map_or_else(String::new, |until| format!(" until {until}"));
            notices.push(Notice {
                about: Key::new(Kind::Namespace, Name::new("", namespace.name.clone())),
                uid: None,
                reason: "Audit",
                note: format!("its policies deny nothing{until}; what they would deny is told"),
            });
        }
        notices.sort_unstable();
        notices.dedup();
        notices
    }
}

fn of(policy: &Name) -> Key {
    Key::new(Kind::Policy, policy.clone())
}
