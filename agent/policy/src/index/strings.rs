//! Strings that many objects share.

use std::{collections::HashSet, sync::Arc};

/// One copy of each string: the names of nodes, the keys and values of labels.
#[derive(Clone, Debug, Default)]
pub(super) struct Strings {
    known: HashSet<Arc<str>>,
    /// The number of strings when those out of use were last dropped.
    swept: usize,
}

impl Strings {
    /// The copy that everybody shares.
    pub(super) fn share(&mut self, string: Arc<str>) -> Arc<str> {
        if let Some(known) = self.known.get(&string) {
            return known.clone();
        }
        if self.known.len() > 2 * self.swept + 1_000 {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.swept = self.known.len();
        }
        self.known.insert(string.clone());
        string
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Strings;

    #[test]
    fn equal_strings_are_one_while_somebody_uses_them() {
        let strings = &mut Strings::default();
        let (one, same) = (strings.share("a".into()), strings.share("a".into()));
        assert!(Arc::ptr_eq(&one, &same));
        for at in 0..5_000 {
            strings.share(at.to_string().into());
        }
        assert!(strings.known.len() < 2_000 && strings.known.contains("a"));
    }
}
