//! Clusters at random, and what happens to them.

use std::collections::BTreeMap;

use super::{
    Rng,
    objects::{self, NAMESPACES},
};
use crate::{
    compile::Compiler,
    index::Index,
    model::{Key, Object, Objects, Pod},
};

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object came or changed.
    Apply(Object),
    /// An object went.
    Delete(Key),
    /// A relist found these.
    Reset(Objects),
}

impl Event {
    /// Tells the compiler.
    pub fn tell(self, compiler: &mut Compiler) {
        match self {
            Self::Apply(object) => compiler.apply(object),
            Self::Delete(key) => compiler.delete(&key),
            Self::Reset(objects) => compiler.reset(objects),
        }
    }
}

/// A cluster, as the API server would have it.
#[derive(Clone, Debug, Default)]
pub struct World {
    objects: BTreeMap<Key, Object>,
    /// Pods ever made.
    made: usize,
}

impl World {
    /// A cluster of this seed, grown by some steps.
    pub fn random(rng: &mut Rng) -> Self {
        let mut world = Self::default();
        for name in NAMESPACES {
            if rng.percent(90) {
                world.put(Object::Namespace(objects::namespace(rng, name)));
            }
        }
        for _ in 0..6 + rng.below(14) {
            let pod = world.pod(rng);
            world.put(Object::Pod(pod));
        }
        for _ in 0..2 + rng.below(8) {
            world.put(Object::Policy(objects::policy(rng)));
        }
        world
    }

    /// The objects, in no particular order of kinds.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        self.objects.values().cloned().collect()
    }

    /// An index of the present objects.
    #[must_use]
    pub fn index(&self) -> Index {
        let mut index = Index::default();
        for object in self.objects() {
            index.apply(object);
        }
        index
    }

    /// A few things happen.
    pub fn step(&mut self, rng: &mut Rng) -> Vec<Event> {
        let most = if rng.percent(25) { 16 } else { 3 };
        (0..=rng.below(most)).map(|_| self.event(rng)).collect()
    }

    fn event(&mut self, rng: &mut Rng) -> Event {
        match rng.below(100) {
            0..12 => {
                let name = rng.pick(&NAMESPACES);
                self.apply(Object::Namespace(objects::namespace(rng, name)))
            }
            12..16 => self.delete_some(rng, |key| matches!(key, Key::Namespace(_))),
            16..32 => {
                let pod = self.pod(rng);
                self.apply(Object::Pod(pod))
            }
            32..52 => self.change_pod(rng),
            52..60 => self.delete_some(rng, |key| matches!(key, Key::Pod(_))),
            60..75 => self.apply(Object::Policy(objects::policy(rng))),
            75..85 => self.edit_policy(rng),
            85..92 => self.delete_some(rng, |key| matches!(key, Key::Policy(_))),
            92..97 => self.apply(Object::Service(objects::service(rng))),
            _ => self.relist(rng),
        }
    }

    fn put(&mut self, object: Object) {
        self.objects.insert(object.key(), object);
    }

    fn apply(&mut self, object: Object) -> Event {
        self.put(object.clone());
        Event::Apply(object)
    }

    fn delete_some(&mut self, rng: &mut Rng, kind: impl Fn(&Key) -> bool) -> Event {
        let keys: Vec<_> = self
            .objects
            .keys()
            .filter(|key| kind(key))
            .cloned()
            .collect();
        // Now and then one that is not there: a watch may tell of what was never seen.
        let key = if keys.is_empty() || rng.percent(5) {
            Key::Pod(objects::name(rng))
        } else {
            rng.pick(&keys)
        };
        self.objects.remove(&key);
        Event::Delete(key)
    }

    /// Something of a pod changes, as little as one field.
    fn change_pod(&mut self, rng: &mut Rng) -> Event {
        let pods = self.objects.values().filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        });
        let pods: Vec<_> = pods.cloned().collect();
        if pods.is_empty() {
            let pod = self.pod(rng);
            return self.apply(Object::Pod(pod));
        }
        let mut pod = rng.pick(&pods);
        let other = self.pod(rng);
        match rng.below(9) {
            0 | 1 => pod.labels = other.labels,
            2 => pod.addresses = other.addresses,
            3 => pod.terminating = true,
            4 => pod.finished = true,
            5 => pod.ports = other.ports,
            6 => pod.addresses.clear(),
            7 => pod.attached = !pod.attached,
            _ => {
                // Recreated under its old name.
                let name = pod.name;
                pod = other;
                pod.name = name;
            }
        }
        self.apply(Object::Pod(pod))
    }

    fn edit_policy(&mut self, rng: &mut Rng) -> Event {
        let policies = self.objects.values().filter_map(|object| match object {
            Object::Policy(policy) => Some(policy),
            _ => None,
        });
        let policies: Vec<_> = policies.cloned().collect();
        let mut policy = objects::policy(rng);
        if !policies.is_empty() {
            let mut old = rng.pick(&policies);
            match rng.below(4) {
                0 => old.selector = policy.selector,
                1 => old.ingress = policy.ingress,
                2 => old.egress = policy.egress,
                _ => {
                    let rules = [&mut old.ingress, &mut old.egress];
                    for rules in rules.into_iter().flatten() {
                        if rng.percent(50) {
                            rules.push(objects::rule(rng));
                        } else {
                            rules.pop();
                        }
                    }
                }
            }
            policy = old;
        }
        self.apply(Object::Policy(policy))
    }

    /// A watch that was lost finds some objects gone and some changed.
    fn relist(&mut self, rng: &mut Rng) -> Event {
        let kind = rng.below(4);
        let lost: Vec<_> = self
            .objects
            .keys()
            .filter(|key| {
                let same = match key {
                    Key::Namespace(_) => kind == 0,
                    Key::Pod(_) => kind == 1,
                    Key::Policy(_) => kind == 2,
                    Key::Service(_) => kind == 3,
                };
                same && rng.percent(20)
            })
            .cloned()
            .collect();
        for key in lost {
            self.objects.remove(&key);
        }
        match kind {
            0 => {}
            1 => {
                let pod = self.pod(rng);
                self.put(Object::Pod(pod));
            }
            2 => self.put(Object::Policy(objects::policy(rng))),
            _ => self.put(Object::Service(objects::service(rng))),
        }
        let objects = self.objects.values().cloned();
        Event::Reset(match kind {
            0 => Objects::Namespaces(
                objects
                    .filter_map(|object| match object {
                        Object::Namespace(namespace) => Some(namespace),
                        _ => None,
                    })
                    .collect(),
            ),
            1 => Objects::Pods(
                objects
                    .filter_map(|object| match object {
                        Object::Pod(pod) => Some(pod),
                        _ => None,
                    })
                    .collect(),
            ),
            2 => Objects::Policies(
                objects
                    .filter_map(|object| match object {
                        Object::Policy(policy) => Some(policy),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => Objects::Services(
                objects
                    .filter_map(|object| match object {
                        Object::Service(service) => Some(service),
                        _ => None,
                    })
                    .collect(),
            ),
        })
    }

    fn pod(&mut self, rng: &mut Rng) -> Pod {
        self.made += 1;
        objects::pod(rng, self.made)
    }
}
