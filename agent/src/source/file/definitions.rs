//! Which file's definition of an object holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::source::{Change, Effect, Issue, Key, Object, Problem};

/// The definitions of each object, by file; the last holds.
#[derive(Default)]
pub(super) struct Definitions {
    objects: HashMap<Key, BTreeMap<Arc<str>, Arc<Object>>>,
    /// Those with more than one.
    disputed: BTreeSet<Key>,
}

/// Changes of definitions under way.
pub(super) struct Moves<'a> {
    definitions: &'a mut Definitions,
    /// What held before, of each object that was touched.
    before: BTreeMap<Key, Option<Arc<Object>>>,
}

impl Definitions {
    pub(super) fn moves(&mut self) -> Moves<'_> {
        Moves {
            definitions: self,
            before: BTreeMap::new(),
        }
    }

    fn holding(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)?.values().next_back()
    }

    /// The objects that several files define.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = Issue> {
        self.disputed.iter().map(|key| {
            let files: Vec<_> = self.objects[key].keys().map(|file| &**file).collect();
            Issue {
                file: None,
                object: Some(key.clone()),
                field: String::new(),
                problem: Problem::Duplicate(files.join(", ")),
                effect: Effect::LastWins,
            }
        })
    }
}

impl Moves<'_> {
    /// Replaces what a file defines.
    pub(super) fn redefine(
        &mut self,
        file: &Arc<str>,
        old: &BTreeMap<Key, Arc<Object>>,
        new: &BTreeMap<Key, Arc<Object>>,
    ) {
        for key in old.keys().filter(|key| !new.contains_key(key)) {
            self.touch(key);
            let Some(files) = self.definitions.objects.get_mut(key) else {
                continue;
            };
            files.remove(file);
            if files.len() < 2 {
                self.definitions.disputed.remove(key);
            }
            if files.is_empty() {
                self.definitions.objects.remove(key);
            }
        }
        for (key, object) in new {
            if old.get(key).is_some_and(|old| Arc::ptr_eq(old, object)) {
                continue;
            }
            self.touch(key);
            let files = self.definitions.objects.entry(key.clone()).or_default();
            files.insert(file.clone(), object.clone());
            if files.len() > 1 {
                self.definitions.disputed.insert(key.clone());
            }
        }
    }

    fn touch(&mut self, key: &Key) {
        if !self.before.contains_key(key) {
            let holding = self.definitions.holding(key).cloned();
            self.before.insert(key.clone(), holding);
        }
    }

    /// What holds now and did not before.
    pub(super) fn into_changes(self) -> Vec<Change> {
        let changed = self.before.into_iter().filter_map(|(key, before)| {
            match self.definitions.holding(&key) {
                None => before.map(|_| Change::Delete(key)),
                Some(now) if before.as_ref() == Some(now) => None,
                Some(now) => Some(Change::Apply(Object::clone(now))),
            }
        });
        changed.collect()
    }
}
