//! What a value was before a batch touched it.

use std::collections::BTreeMap;

/// The values as they were, of the keys that were touched.
pub(super) struct Journal<K, V>(BTreeMap<K, Option<V>>);

impl<K, V> Default for Journal<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: PartialEq> Journal<K, V> {
    /// Notes what the key had before it is touched, if that is not noted yet.
    pub(super) fn note(&mut self, key: K, before: impl FnOnce() -> Option<V>) {
        self.0.entry(key).or_insert_with(before);
    }

    /// Whether the key is noted and had no value.
    pub(super) fn is_new(&self, key: &K) -> bool {
        matches!(self.0.get(key), Some(None))
    }

    /// The keys whose value is other than it was, in order.
    pub(super) fn take<'a>(&mut self, present: impl Fn(&K) -> Option<&'a V>) -> Vec<K>
    where
        V: 'a,
    {
        std::mem::take(&mut self.0)
            .into_iter()
            .filter(|(key, before)| present(key) != before.as_ref())
            .map(|(key, _)| key)
            .collect()
    }
}
