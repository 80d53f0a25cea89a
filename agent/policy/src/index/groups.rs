//! Groups by content.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{Group, GroupId, strings::Strings};
use crate::model::{Labels, Mode, NamedPort};

/// Each group once, with the number of its pods.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    pods: HashMap<Content, usize>,
    created: u32,
}

/// A group, compared by what it is instead of by its number.
#[derive(Clone, Debug)]
struct Content(Arc<Group>);

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.0.namespace == other.0.namespace
            && self.0.labels == other.0.labels
            && self.0.ports == other.0.ports
            && self.0.mode == other.0.mode
    }
}

impl Eq for Content {}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.namespace.hash(state);
        self.0.labels.hash(state);
        self.0.ports.hash(state);
        self.0.mode.hash(state);
    }
}

impl Groups {
    /// The group of a further pod.
    pub(super) fn join(
        &mut self,
        strings: &mut Strings,
        namespace: Arc<str>,
        labels: Labels,
        mut ports: Vec<NamedPort>,
        mode: Mode,
    ) -> Arc<Group> {
        ports.sort();
        ports.dedup();
        let content = Content(Arc::new(Group {
            id: GroupId(self.created),
            namespace,
            labels,
            ports,
            mode,
        }));
        match self.pods.entry(content) {
            Entry::Occupied(mut known) => {
                *known.get_mut() += 1;
                known.key().0.clone()
            }
            Entry::Vacant(place) => {
                self.created += 1;
                let Content(mut group) = place.into_key();
                if let Some(group) = Arc::get_mut(&mut group) {
                    share(strings, group);
                }
                self.pods.insert(Content(group.clone()), 1);
                group
            }
        }
    }

    /// One pod of the group less.
    pub(super) fn leave(&mut self, group: &Arc<Group>) {
        let content = Content(group.clone());
        if let Some(pods) = self.pods.get_mut(&content) {
            *pods -= 1;
            if *pods == 0 {
                self.pods.remove(&content);
            }
        }
    }

    pub(super) fn has(&self, group: &Arc<Group>) -> bool {
        self.pods
            .get_key_value(&Content(group.clone()))
            .is_some_and(|(known, _)| known.0.id == group.id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.pods.keys().map(|content| &content.0)
    }
}

/// Replaces the strings of a group by the copies that others share.
fn share(strings: &mut Strings, group: &mut Group) {
    let labels = std::mem::take(&mut group.labels).into_iter();
    group.labels = labels
        .map(|(key, value)| (strings.share(key), strings.share(value)))
        .collect();
    group.namespace = strings.share(group.namespace.clone());
    for port in &mut group.ports {
        port.name = strings.share(port.name.clone());
    }
}
