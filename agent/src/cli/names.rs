//! Which objects of a kind a command is about, by name.

use std::collections::BTreeMap;

use super::{Exit, complain};

/// Flags that name them.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Names {
    /// Only these; all, where none is named.
    #[arg(value_name = "NS/NAME", value_parser = pair)]
    names: Vec<(String, String)>,
    /// Only those of this namespace; may be given again.
    #[arg(short, long, value_name = "NS")]
    namespace: Vec<String>,
}

impl Names {
    /// Whether an object is meant.
    pub(super) fn has(&self, namespace: &str, name: &str) -> bool {
        let named = self
            .names
            .iter()
            .any(|(in_namespace, known)| in_namespace == namespace && known == name);
        let within = self.namespace.iter().any(|known| known == namespace);
        named || within || (self.names.is_empty() && self.namespace.is_empty())
    }

    /// Complains of nodes that did not answer, and of names that nobody `known` has: then the answer is no.
    pub(super) fn end(
        &self,
        kind: &str,
        known: &[(String, String)],
        unavailable: &BTreeMap<String, String>,
    ) -> Exit {
        for (node, fault) in unavailable {
            complain(format_args!("node {node} does not answer: {fault}"));
        }
        let missing: Vec<_> = self
            .names
            .iter()
            .filter(|name| !known.contains(name))
            .collect();
        for (namespace, name) in &missing {
            complain(format_args!(
                "no agent that was asked knows the {kind} {namespace}/{name}"
            ));
        }
        match missing.is_empty() {
            true => Exit::Yes,
            false => Exit::No,
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str], namespaces: &[&str]) -> Names {
        Names {
            names: names
                .iter()
                .map(|name| pair(name).expect("a name"))
                .collect(),
            namespace: namespaces.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn all_are_meant_where_none_is_named() {
        assert!(names(&[], &[]).has("x", "a"));
        let some = names(&["x/a"], &["y"]);
        assert!(some.has("x", "a") && some.has("y", "b"));
        assert!(!some.has("x", "b") && !some.has("z", "a"));
    }

    #[test]
    fn a_name_that_nobody_has_is_a_no() {
        let known = [("x".to_owned(), "a".to_owned())];
        assert_eq!(
            names(&["x/a"], &[]).end("pod", &known, &BTreeMap::new()),
            Exit::Yes
        );
        assert_eq!(
            names(&["x/b"], &[]).end("pod", &known, &BTreeMap::new()),
            Exit::No
        );
        for wrong in ["a", "/a", "x/", "x/a/b"] {
            assert!(pair(wrong).is_err(), "{wrong}");
        }
    }
}
