//! What is known of the objects, and what each watch event makes of it. No I/O.
//!
//! A list replaces what is known as a set: each object of it is applied as it comes, for it is no older than what is
//! known, and at its end the objects go that it did not name. Nothing goes in between.
//!
//! Versions of one kind grow with every change to any of its objects, deletions included. So an event that is no
//! newer than another is late or a duplicate, and would bring back what has passed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use ::kube::runtime::watcher::Event;
use palisade_policy::model::Name;
use serde_json::Value;

use crate::source::{
    Batch, Change, Issue, Key, Kind, Ticket,
    convert::{Converted, convert_as},
};

/// The objects of all kinds.
pub(super) struct Objects {
    kinds: BTreeMap<Kind, Known>,
    issues: BTreeMap<Key, Vec<Issue>>,
    /// What the next batch tells.
    changes: Vec<Change>,
    /// What the last one told.
    told: Told,
    issues_changed: bool,
    /// The uids of policies, for Events on them.
    uids: BTreeMap<Name, Arc<str>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    issues: Arc<[Issue]>,
    synced: bool,
    unreachable: Option<String>,
}

/// The objects of one kind.
#[derive(Default)]
struct Known {
    /// Each with the number of the last list that named it, or during which it came.
    objects: HashMap<Name, u32>,
    /// How many lists there have been.
    lists: u32,
    /// Whether one of them was whole.
    synced: bool,
    /// Whether one is under way.
    listing: bool,
    /// The newest version seen since the present list began.
    newest: u64,
    /// Why the kind cannot be watched.
    fault: Option<String>,
}

impl Objects {
    /// None yet of these kinds.
    pub(super) fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let kinds = kinds.into_iter().map(|kind| (kind, Known::default()));
        Self {
            kinds: kinds.collect(),
            issues: BTreeMap::new(),
            changes: Vec::new(),
            told: Told::default(),
            issues_changed: false,
            uids: BTreeMap::new(),
        }
    }

    /// The watch of a kind fails, or (`None`) does not any more.
    pub(super) fn set_fault(&mut self, kind: Kind, fault: Option<String>) {
        self.kinds.entry(kind).or_default().fault = fault;
    }

    /// Takes in an event.
    pub(super) fn take(&mut self, kind: Kind, event: Event<Value>) {
        let known = self.kinds.entry(kind).or_default();
        match event {
            Event::Init => {
                known.lists += 1;
                known.listing = true;
                known.newest = 0;
            }
            Event::InitApply(object) => {
                known.newest = known.newest.max(version(&object).unwrap_or(0));
                self.apply(kind, &object);
            }
            Event::InitDone => {
                known.synced = true;
                known.listing = false;
                let list = known.lists;
                let gone: Vec<_> = known
                    .objects
                    .extract_if(|_, last| *last != list)
                    .map(|(name, _)| name)
                    .collect();
                for name in gone {
                    self.forget(Key::new(kind, name));
                }
            }
            Event::Apply(object) => {
                if known.passes(&object) {
                    self.apply(kind, &object);
                }
            }
            Event::Delete(object) => {
                if let Some(name) = name(kind, &object)
                    && known.passes(&object)
                {
                    known.objects.remove(&name);
                    self.forget(Key::new(kind, name));
                }
            }
        }
    }

    /// The uids of policies.
    pub(super) const fn uids(&self) -> &BTreeMap<Name, Arc<str>> {
        &self.uids
    }

    /// The version to which the watch of a kind has come; none while it tells a list.
    pub(super) fn newest(&self, kind: Kind) -> Option<u64> {
        let known = self.kinds.get(&kind)?;
        (known.synced && !known.listing).then_some(known.newest)
    }

    /// What is other than the last batch told, and the questions that it answers.
    pub(super) fn batch(&mut self, seen: Instant, answers: Vec<Ticket>) -> Option<Batch> {
        let mut told = self.told.clone();
        if std::mem::take(&mut self.issues_changed) {
            told.issues = self.issues.values().flatten().cloned().collect();
        }
        told.synced = self.kinds.values().all(|known| known.synced);
        let fault = |(kind, known): (&Kind, &Known)| {
            let fault = known.fault.as_ref()?;
            Some(format!(
                "{} objects cannot be watched: {fault}",
                kind.name()
            ))
        };
        told.unreachable = self.kinds.iter().find_map(fault);
        if self.changes.is_empty() && told == self.told && answers.is_empty() {
            return None;
        }
        self.told = told.clone();
        let Told {
            issues,
            synced,
            unreachable,
        } = told;
        Some(Batch {
            changes: std::mem::take(&mut self.changes),
            issues,
            synced,
            unreachable,
            seen,
            answers,
        })
    }

    fn apply(&mut self, kind: Kind, object: &Value) {
        let Converted {
            objects,
            refused,
            issues,
        } = match convert_as(kind, object) {
            Ok(converted) => converted,
            Err(fault) => {
                tracing::error!(kind = kind.name(), %fault, "the server sent an object without a name");
                return;
            }
        };
        let Some(key) = objects
            .first()
            .map(crate::source::Object::key)
            .or(refused.into_iter().next())
        else {
            return;
        };
        if let Some(known) = self.kinds.get_mut(&kind) {
            known.objects.insert(key.name.clone(), known.lists);
        }
        let uid = || object.get("metadata")?.get("uid")?.as_str();
        if let Some(uid) = uid().filter(|_| kind == Kind::Policy) {
            self.uids.insert(key.name.clone(), uid.into());
        }
        self.changes.extend(objects.into_iter().map(Change::Apply));
        if issues.is_empty() {
            self.issues_changed |= self.issues.remove(&key).is_some();
        } else if self.issues.get(&key) != Some(&issues) {
            self.issues.insert(key, issues);
            self.issues_changed = true;
        }
    }

    fn forget(&mut self, key: Key) {
        if key.kind == Kind::Policy {
            self.uids.remove(&key.name);
        }
        self.issues_changed |= self.issues.remove(&key).is_some();
        self.changes.push(Change::Delete(key));
    }
}

impl Known {
    /// Whether an event is newer than all before it. One that does not say is believed.
    fn passes(&mut self, object: &Value) -> bool {
        let Some(version) = version(object) else {
            return true;
        };
        let newer = version > self.newest;
        self.newest = self.newest.max(version);
        newer
    }
}

fn version(object: &Value) -> Option<u64> {
    let version = object.get("metadata")?.get("resourceVersion")?.as_str()?;
    version.parse().ok()
}

fn name(kind: Kind, object: &Value) -> Option<Name> {
    let text = |key| object.get("metadata")?.get(key)?.as_str();
    let namespace = if kind.is_namespaced() {
        text("namespace")?
    } else {
        ""
    };
    Some(Name::new(namespace, text("name")?))
}

#[cfg(test)]
mod tests;
