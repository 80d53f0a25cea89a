//! Events on policies, namespaces and nodes, for what users must know of them.
//!
//! Every agent may see the same problem, and one Event is enough. Its name is made of its content, so the server
//! keeps the first and refuses the others; agents speak at different times, so that few have to be refused.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, Instant},
};

use ::kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use jiff::Timestamp;
use palisade_policy::model::Name;
use serde_json::json;

use crate::source::{Key, Kind, Notice};

/// For how long a problem has to stand before it is said; much of what is wrong passes.
const STANDS: Duration = Duration::from_secs(20);
/// Over how long a time agents spread what all of them see.
const SPREAD: Duration = Duration::from_secs(20);
/// How often a problem that stays is said: as often as the server forgets Events.
const AGAIN: Duration = Duration::from_secs(60 * 60);
/// How many are said at once.
const BURST: usize = 5;
/// The longest note (`events.k8s.io/v1`).
const LONGEST: usize = 1000;
/// How long a policy's name may be in front of the name of an Event.
const NAME: usize = 200;

/// Says what users must know of objects.
pub(super) struct Events {
    client: Client,
    node: Arc<str>,
    /// When each problem that stands is to be said next.
    due: HashMap<Notice, Instant>,
}

impl Events {
    /// Of that node's agent.
    pub(super) fn new(client: Client, node: Arc<str>) -> Self {
        Self {
            client,
            node,
            due: HashMap::new(),
        }
    }

    /// These problems stand: says some of those that are due, in the background. Policies' uids tell them from
    /// others of the same name.
    pub(super) fn say(
        &mut self,
        notices: &[Notice],
        uids: &BTreeMap<Name, Arc<str>>,
        now: Instant,
    ) {
        let node = &self.node;
        let known = std::mem::take(&mut self.due);
        self.due = notices
            .iter()
            .map(|notice| {
                let first = || now + STANDS + SPREAD.mul_f64(share(&(notice, node)));
                let at = known.get(notice).copied().unwrap_or_else(first);
                (notice.clone(), at)
            })
            .collect();
        let due = self.due.iter_mut().filter(|(_, at)| **at <= now);
        for (notice, at) in due.take(BURST) {
            *at = now + AGAIN;
            let of_policy = notice.about.kind == Kind::Policy;
            let uid = match of_policy {
                true => uids.get(&notice.about.name),
                false => notice.uid.as_ref(),
            };
            if uid.is_some() || !of_policy {
                let event = event(notice, uid, node);
                tokio::spawn(post(self.client.clone(), notice.about.clone(), event));
            }
        }
    }
}

/// A number within 0 and 1 that depends on a value alone.
fn share(value: &impl std::hash::Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}

/// The namespace of an object's Events; of what is in none itself they are in `default`.
fn namespace(about: &Key) -> &str {
    match about.kind.is_namespaced() {
        true => &about.name.namespace,
        false => "default",
    }
}

fn event(notice: &Notice, uid: Option<&Arc<str>>, node: &Arc<str>) -> serde_json::Value {
    let Notice {
        about,
        reason,
        note,
        ..
    } = notice;
    let version = match about.kind {
        Kind::Policy => "networking.k8s.io/v1",
        Kind::Namespace | Kind::Node | Kind::Pod | Kind::Service => "v1",
    };
    let namespaced = about.kind.is_namespaced();
    let mut hasher = DefaultHasher::new();
    (notice, uid).hash(&mut hasher);
    let cut = |text: &str, longest| text.chars().take(longest).collect::<String>();
    let prefix = cut(&about.name.name, NAME);
    let prefix = prefix.trim_end_matches(['.', '-']);
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{prefix}.{:016x}", hasher.finish()),
            "namespace": namespace(about),
        },
        "eventTime": format!("{:.6}", Timestamp::now()),
        "reportingController": "palisade",
        "reportingInstance": node,
        "action": "Enforce",
        "type": "Warning",
        "reason": reason,
        "note": cut(note, LONGEST),
        "regarding": {
            "apiVersion": version,
            "kind": about.kind.name(),
            "namespace": namespaced.then_some(&about.name.namespace),
            "name": about.name.name,
            "uid": uid,
        },
    })
}

async fn post(client: Client, about: Key, event: serde_json::Value) {
    let kind = GroupVersionKind::gvk("events.k8s.io", "v1", "Event");
    let resource = ApiResource::from_gvk(&kind);
    let api = Api::<DynamicObject>::namespaced_with(client, namespace(&about), &resource);
    let event = match serde_json::from_value(event) {
        Ok(event) => event,
        Err(error) => return tracing::error!(%error, "an Event cannot be made"),
    };
    match api.create(&PostParams::default(), &event).await {
        Ok(_) => tracing::info!(%about, "said on the object what users must know of it"),
        // Another agent was first.
        Err(Error::Api(status)) if status.code == 409 => {}
        Err(error) => tracing::warn!(%about, %error, "an Event is refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_give_the_same_problem_one_name_and_others_others() {
        let notice = |note: &str| Notice {
            about: Key::new(Kind::Policy, Name::new("x", "a-policy")),
            uid: None,
            reason: "PolicyInvalid",
            note: note.to_owned(),
        };
        let name = |notice: &Notice, uid: &str, node: &str| {
            event(notice, Some(&uid.into()), &node.into())["metadata"]["name"].clone()
        };
        let one = name(&notice("a"), "1", "node1");
        assert_eq!(one, name(&notice("a"), "1", "node2"));
        assert_ne!(one, name(&notice("b"), "1", "node1"));
        assert_ne!(one, name(&notice("a"), "2", "node1"));
    }
}
