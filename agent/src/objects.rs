//! The objects of a cluster at one moment, read once: for whoever judges policies before they are in force.
//!
//! They come from files, where workloads stand for the pods that would be made of them, or from an API server. What
//! the server would know and files do not say is filled in: a namespace that nobody defines has the label that every
//! namespace has, and a pod without an address gets a [stand-in](palisade_policy::standin).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use palisade_policy::{
    index::Index,
    model::{self, Mode, Name, NamedPort, Namespace, Peer, Peers},
    standin,
};

use crate::{
    explain::Nodes,
    source::{
        Effect, Issue, Key, Kind, Object, Problem,
        convert::{Described, PodNote, PolicyNote, name_label},
        file::Text,
    },
};

mod cluster;
mod files;

/// Where an object is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line on which its document begins, from 1 on.
    pub line: u64,
    /// The document as it is written, where that is known.
    text: Option<Arc<Text>>,
}

impl Place {
    /// The line of a field of the object, or of what there is around it.
    #[must_use]
    pub fn line_of(&self, field: &str) -> u64 {
        let text = self.text.as_ref();
        text.and_then(|text| text.line_of(field))
            .unwrap_or(self.line)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    objects: BTreeMap<Key, Object>,
    notes: BTreeMap<Name, PodNote>,
    of_policies: BTreeMap<Name, PolicyNote>,
    places: BTreeMap<Key, Place>,
    issues: Vec<Issue>,
    /// Namespaces that nobody defines.
    assumed: BTreeSet<Arc<str>>,
    /// The numbers of stand-ins, by pod; kept when other objects are laid over these.
    standins: BTreeMap<Name, u32>,
}

impl Objects {
    /// What is wrong with them.
    #[must_use]
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// The same with nothing in audit: as it will be once all is enforced.
    #[must_use]
    pub fn enforced(mut self) -> Self {
        for object in self.objects.values_mut() {
            match object {
                Object::Namespace(namespace) => {
                    namespace.mode = Mode::Enforce;
                    namespace.mode_until = None;
                }
                Object::Pod(pod) => pod.mode = Mode::Enforce,
                Object::Policy(policy) => policy.mode = Mode::Enforce,
                Object::Node(_) | Object::Service(_) => {}
            }
        }
        self
    }

    /// Whether an object is missing for being unreadable.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        let missing = |issue: &Issue| matches!(issue.effect, Effect::FileKept | Effect::ObjectKept);
        self.issues.iter().any(missing)
    }

    /// Where an object is defined, if it came from a file.
    #[must_use]
    pub fn place(&self, key: &Key) -> Option<&Place> {
        self.places.get(key)
    }

    /// Namespaces that have objects and that nobody defines, where some policy looks at more than their names: whether it
    /// matches them is not known.
    pub fn doubtful_namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        let doubtful = self.policies().any(looks_at_labels_of_namespaces);
        self.assumed.iter().filter(move |_| doubtful)
    }

    /// The ports that the containers of a pod declare, those without a name too.
    #[must_use]
    pub fn container_ports(&self, pod: &Name) -> &[NamedPort] {
        self.notes.get(pod).map_or(&[], |note| &note.ports)
    }

    /// What a policy says of itself besides what it allows.
    #[must_use]
    pub fn note_of(&self, policy: &Name) -> PolicyNote {
        self.of_policies.get(policy).cloned().unwrap_or_default()
    }

    /// The name under which users know a pod: its workload's, or its own where it has none.
    #[must_use]
    pub fn workload(&self, pod: &Name) -> Name {
        let workload = self.notes.get(pod).and_then(|note| note.workload.as_ref());
        workload.map_or_else(
            || pod.clone(),
            |workload| Name {
                namespace: pod.namespace.clone(),
                name: workload.name.clone(),
            },
        )
    }

    /// The pods that a name means: the pod of that name, or those of the workload of that name.
    #[must_use]
    pub fn pods_named(&self, name: &Name) -> Vec<Name> {
        if self.notes.contains_key(name) {
            return vec![name.clone()];
        }
        let all = self.notes.keys();
        all.filter(|pod| pod.namespace == name.namespace && self.workload(pod) == *name)
            .cloned()
            .collect()
    }

    /// The pod of that name, or where it is gone another of its workload, as far as the name tells: it ends in one part of
    /// the pod's own (StatefulSets, DaemonSets, Jobs) or in two.
    #[must_use]
    pub fn pod_like(&self, name: &Name) -> Option<Name> {
        if self.notes.contains_key(name) {
            return Some(name.clone());
        }
        let once = name.name.rsplit_once('-')?.0;
        let twice = once.rsplit_once('-').map(|(workload, _)| workload);
        [Some(once), twice]
            .into_iter()
            .flatten()
            .find_map(|workload| {
                let workload = Name::new(name.namespace.clone(), workload);
                self.pods_named(&workload).into_iter().next()
            })
    }

    /// The workloads and pods that are here and not there.
    #[must_use]
    pub fn pods_without(&self, other: &Self) -> BTreeSet<Name> {
        let here = self.notes.keys().filter(|pod| {
            let key = Key::new(Kind::Pod, Name::clone(pod));
            !other.objects.contains_key(&key)
        });
        here.map(|pod| self.workload(pod)).collect()
    }

    /// How many pods have no address that is known.
    #[must_use]
    pub fn without_address(&self) -> usize {
        self.standins.len()
    }

    /// The objects as policy sees them, with stand-ins for addresses that are not known.
    #[must_use]
    pub fn index(&self) -> Index {
        let mut index = Index::default();
        for object in self.model() {
            index.apply(object);
        }
        index
    }

    /// The objects as they are, without stand-ins.
    #[must_use]
    pub fn bare_index(&self) -> Index {
        let mut index = Index::default();
        for object in self.objects.values().cloned() {
            if let Some(object) = object.into_model() {
                index.apply(object);
            }
        }
        index
    }

    /// The objects as [`Objects::index`] holds them.
    pub fn model(&self) -> impl Iterator<Item = model::Object> {
        let objects = self.objects.values().cloned();
        objects
            .filter_map(Object::into_model)
            .map(|object| match object {
                model::Object::Pod(mut pod) => {
                    if let Some(number) = self.standins.get(&pod.name) {
                        pod.addresses = standin::addresses(*number).into();
                    }
                    model::Object::Pod(pod)
                }
                model::Object::Policy(mut policy) if !self.standins.is_empty() => {
                    standin::keep_out(&mut policy);
                    model::Object::Policy(policy)
                }
                other => other,
            })
    }

    /// The addresses of the nodes.
    #[must_use]
    pub fn nodes(&self) -> Nodes {
        let mut nodes = Nodes::default();
        for object in self.objects.values() {
            if let Object::Node(node) = object {
                nodes.apply(node.clone());
            }
        }
        nodes
    }

    /// These objects and those; where both define one, that one's definition holds. Pods of a workload that is among those
    /// become what its template says.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.roll_out(&other);
        let Self {
            objects,
            notes,
            of_policies,
            places,
            issues,
            assumed,
            standins: _,
        } = other;
        for (key, object) in objects {
            if key.kind == Kind::Namespace {
                if assumed.contains(&key.name.name) {
                    continue;
                }
                self.assumed.remove(&key.name.name);
            }
            self.objects.insert(key, object);
        }
        self.notes.extend(notes);
        self.of_policies.extend(of_policies);
        self.places.extend(places);
        self.issues.extend(issues);
        self.settle();
        self
    }

    /// Takes the object out. Whether it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        self.places.remove(key);
        self.objects.remove(key).is_some()
    }

    /// The policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &model::Policy> {
        self.objects.values().filter_map(|object| match object {
            Object::Policy(policy) => Some(policy),
            _ => None,
        })
    }

    /// Adds a policy, or replaces the one of its name.
    pub fn apply(&mut self, policy: model::Policy) {
        let object = Object::Policy(policy);
        self.objects.insert(object.key(), object);
        self.settle();
    }

    /// Takes in what a document yields.
    fn take(&mut self, described: Described, place: Option<&Place>) {
        let Described {
            converted,
            pods,
            policies,
        } = described;
        self.of_policies.extend(policies);
        for mut issue in converted.issues {
            issue.file = place.map(|place| place.file.clone());
            if let (Some(key), Some(place)) = (&issue.object, place) {
                self.places
                    .entry(key.clone())
                    .or_insert_with(|| place.clone());
            }
            self.issues.push(issue);
        }
        for object in converted.objects {
            let key = object.key();
            let first = self.objects.insert(key.clone(), object).is_some();
            let Some(place) = place else { continue };
            let before = self.places.insert(key.clone(), place.clone());
            if let Some(before) = before.filter(|_| first) {
                self.issues.push(Issue {
                    file: Some(place.file.clone()),
                    object: Some(key),
                    field: String::new(),
                    problem: Problem::Duplicate(format!("{before}, {place}")),
                    effect: Effect::LastWins,
                });
            }
        }
        for note in pods {
            self.notes.insert(note.pod.clone(), note);
        }
    }

    /// Fills in what is not said.
    fn settle(&mut self) {
        self.drop_templates();
        let namespaced = self.objects.keys().filter(|key| key.kind.is_namespaced());
        let used: BTreeSet<_> = namespaced.map(|key| key.name.namespace.clone()).collect();
        for name in used {
            let key = Key::new(Kind::Namespace, Name::new("", name.clone()));
            self.objects.entry(key).or_insert_with(|| {
                self.assumed.insert(name.clone());
                let labels = [name_label(&name)].into();
                Object::Namespace(Namespace::new(name, labels))
            });
        }
        let mut next = self.standins.values().max().map_or(0, |last| last + 1);
        for object in self.objects.values() {
            if let Object::Pod(pod) = object
                && pod.addresses.is_empty()
                && !pod.finished
            {
                self.standins.entry(pod.name.clone()).or_insert_with(|| {
                    next += 1;
                    next - 1
                });
            }
        }
        let objects = &self.objects;
        self.standins.retain(|name, _| {
            let pod = objects.get(&Key::new(Kind::Pod, name.clone()));
            matches!(pod, Some(Object::Pod(pod)) if pod.addresses.is_empty() && !pod.finished)
        });
    }

    /// Gives the pods of workloads the labels and ports that their templates have there.
    fn roll_out(&mut self, other: &Self) {
        let made = other.notes.values().filter(|note| note.made);
        for template in made {
            let Some(Object::Pod(new)) = other
                .objects
                .get(&Key::new(Kind::Pod, template.pod.clone()))
            else {
                continue;
            };
            let of_workload = self.notes.values_mut().filter(|note| {
                note.pod.namespace == template.pod.namespace && note.workload == template.workload
            });
            for note in of_workload {
                note.ports.clone_from(&template.ports);
                let key = Key::new(Kind::Pod, note.pod.clone());
                if let Some(Object::Pod(pod)) = self.objects.get_mut(&key) {
                    pod.labels.clone_from(&new.labels);
                    pod.ports.clone_from(&new.ports);
                }
            }
        }
    }

    /// Takes away the pods that were made of workloads whose own pods are there.
    fn drop_templates(&mut self) {
        let real = self.notes.values().filter(|note| !note.made);
        let real: BTreeSet<_> = real
            .filter_map(|note| Some((note.pod.namespace.clone(), note.workload.clone()?)))
            .collect();
        let idle = self.notes.values().filter(|note| {
            let workload = note.workload.clone();
            note.made && workload.is_some_and(|it| real.contains(&(note.pod.namespace.clone(), it)))
        });
        let idle: Vec<_> = idle.map(|note| note.pod.clone()).collect();
        for name in idle {
            self.notes.remove(&name);
            self.objects.remove(&Key::new(Kind::Pod, name));
        }
    }
}

/// Whether more has to be known of a namespace than its name.
fn looks_at_labels_of_namespaces(policy: &model::Policy) -> bool {
    let mut rules = policy.ingress.iter().chain(&policy.egress).flatten();
    rules.any(|rule| {
        let peers: &[Peer] = match &rule.peers {
            Peers::Any => &[],
            Peers::Of(peers) => peers,
        };
        let mut selectors = peers.iter().filter_map(|peer| match peer {
            Peer::Pods { namespaces, .. } => namespaces.as_ref(),
            Peer::Block(_) => None,
        });
        selectors.any(|selector| {
            let mut requirements = selector.requirements().iter();
            requirements.any(|one| *one.key != *"kubernetes.io/metadata.name")
        })
    })
}

#[cfg(test)]
mod tests;
