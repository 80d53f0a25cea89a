//! The pods by what policies see of them, and whom policies select.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use crate::{
    evaluate::rules,
    index::{Group, Index, Pod},
    model::{Operator, Policy, Selector},
    table::Direction,
};

/// All pods that policies can speak of.
pub(crate) struct Population<'a> {
    pub(crate) index: &'a Index,
    /// By namespace.
    crowds: Vec<Crowd<'a>>,
    namespaces: BTreeMap<&'a str, Range<usize>>,
    /// The crowds that have a label, in their order.
    labels: HashMap<(&'a str, &'a str), Vec<usize>>,
}

/// Pods that are one to every selector and every named port.
pub(crate) struct Crowd<'a> {
    pub(crate) group: &'a Group,
    /// At least one, by name.
    pub(crate) pods: Vec<&'a Arc<Pod>>,
    /// The policies that isolate their ingress, by name.
    ingress: Vec<&'a Policy>,
    /// Those that isolate their egress.
    egress: Vec<&'a Policy>,
}

impl<'a> Crowd<'a> {
    /// The policies that isolate them, by name.
    pub(crate) fn isolating(&self, direction: Direction) -> &[&'a Policy] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl<'a> Population<'a> {
    pub(crate) fn of(index: &'a Index) -> Self {
        let mut groups: BTreeMap<_, Crowd<'a>> = BTreeMap::new();
        for pod in index.pods().filter(|pod| pod.counts()) {
            let group: &Group = &pod.group;
            let crowd = groups
                .entry((&*group.namespace, group.id))
                .or_insert(Crowd {
                    group,
                    pods: Vec::new(),
                    ingress: Vec::new(),
                    egress: Vec::new(),
                });
            crowd.pods.push(pod);
        }
        let mut crowds: Vec<_> = groups.into_values().collect();
        crowds.sort_by(|one, other| one.pods[0].name.cmp(&other.pods[0].name));
        let mut namespaces: BTreeMap<&str, Range<usize>> = BTreeMap::new();
        let mut labels: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
        for (at, crowd) in crowds.iter().enumerate() {
            let place = namespaces.entry(&crowd.group.namespace).or_insert(at..at);
            place.end = at + 1;
            for (key, value) in &crowd.group.labels {
                labels.entry((key, value)).or_default().push(at);
            }
        }
        let mut population = Self {
            index,
            crowds,
            namespaces,
            labels,
        };
        for policy in index.policies() {
            let place = population.place(&policy.name.namespace);
            for crowd in &mut population.crowds[place] {
                if policy.selector.matches(&crowd.group.labels) {
                    if rules(policy, Direction::Ingress).is_some() {
                        crowd.ingress.push(policy);
                    }
                    if rules(policy, Direction::Egress).is_some() {
                        crowd.egress.push(policy);
                    }
                }
            }
        }
        population
    }

    fn place(&self, namespace: &str) -> Range<usize> {
        self.namespaces.get(namespace).cloned().unwrap_or(0..0)
    }

    /// All of them.
    pub(crate) fn crowds(&self) -> &[Crowd<'a>] {
        &self.crowds
    }

    /// Those of a namespace.
    pub(crate) fn crowds_of(&self, namespace: &str) -> &[Crowd<'a>] {
        &self.crowds[self.place(namespace)]
    }

    /// Those of a namespace that a selector matches.
    pub(crate) fn selected<'b>(
        &'b self,
        namespace: &str,
        selector: &'b Selector,
    ) -> impl Iterator<Item = &'b Crowd<'a>> {
        let crowds = self.crowds_of(namespace).iter();
        crowds.filter(|crowd| selector.matches(&crowd.group.labels))
    }

    /// Those of the namespaces that match, or of the policy's own where nothing is said of namespaces.
    pub(crate) fn peers<'b>(
        &'b self,
        policy: &'b Policy,
        namespaces: Option<&'b Selector>,
        pods: &'b Selector,
    ) -> Box<dyn Iterator<Item = &'b Crowd<'a>> + 'b> {
        let Some(namespaces) = namespaces else {
            return Box::new(self.selected(&policy.name.namespace, pods));
        };
        let matches = move |crowd: &&Crowd<'_>| {
            let labels = self.index.namespace(&crowd.group.namespace);
            pods.matches(&crowd.group.labels)
                && labels.is_some_and(|labels| namespaces.matches(labels))
        };
        match self.bearers(pods) {
            Some(bearers) => Box::new(bearers.map(|at| &self.crowds[at]).filter(matches)),
            None => Box::new(self.crowds.iter().filter(matches)),
        }
    }

    /// All that can match a selector, by one of its labels; `None` where it names none.
    fn bearers<'b>(&'b self, selector: &'b Selector) -> Option<impl Iterator<Item = usize> + 'b> {
        let listed =
            selector
                .requirements()
                .iter()
                .find_map(|requirement| match &requirement.operator {
                    Operator::In(values) => Some((&requirement.key, values)),
                    _ => None,
                });
        let (key, values) = listed?;
        let of_value = move |value: &'b Arc<str>| self.labels.get(&(&**key, &**value));
        Some(values.iter().filter_map(of_value).flatten().copied())
    }
}
