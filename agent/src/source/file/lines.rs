//! On which line a field stands, for whoever says that something is wrong with it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::document::options;

/// A document as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// How many lines of the file come before it.
    pub(super) before: u64,
    pub(super) text: String,
}

impl Text {
    /// The line of a field, named as `spec.ingress[0].from[1]`, from 1 on; of what there is around it where it is not
    /// there itself. `None` if not even its first part is.
    pub(crate) fn line_of(&self, field: &str) -> Option<u64> {
        let documents: Vec<Node> =
            serde_saphyr::from_multiple_with_options(&self.text, options()).ok()?;
        let [document] = &documents[..] else {
            return None;
        };
        let (mut node, mut line) = (document, None);
        for part in parts(field) {
            let child = match (node, part) {
                (Node::Map(fields), Part::Key(key)) => {
                    let mut fields = fields.iter();
                    fields
                        .find(|(name, ..)| name == key)
                        .map(|(_, line, child)| (*line, child))
                }
                (Node::List(items), Part::Item(at)) => {
                    items.get(at).map(|(line, child)| (*line, child))
                }
                _ => None,
            };
            let Some((at, child)) = child else { break };
            (node, line) = (child, Some(at));
        }
        line.map(|line| self.before + line)
    }
}

enum Part<'a> {
    Key(&'a str),
    Item(usize),
}

/// The parts of a path. A key that has dots itself, as labels do, is not found; what is around it is.
fn parts(field: &str) -> impl Iterator<Item = Part<'_>> {
    let parts = field.split(['.', '[']).filter(|part| !part.is_empty());
    parts.map(|part| {
        let item = part.strip_suffix(']').and_then(|item| item.parse().ok());
        item.map_or(Part::Key(part), Part::Item)
    })
}

/// A value, of which only the places of what it holds matter.
enum Node {
    /// Each field: its name, the line of that, and the value.
    Map(Vec<(String, u64, Node)>),
    /// Each item, and its line.
    List(Vec<(u64, Node)>),
    Scalar,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Node>>()? {
            items.push((item.referenced.line(), item.value));
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<Spanned<Name>>()? {
            let line = name.referenced.line();
            match name.value.0 {
                Some(name) => fields.push((name, line, map.next_value()?)),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Node::Map(fields))
    }
}

/// The name of a field; none where it is no text.
struct Name(Option<String>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "---
# A policy.
kind: NetworkPolicy
spec:
  podSelector: {}
  ingress:
    - from:
        - podSelector:
            matchLabels: {app: web}
        - ipBlock: {cidr: 10.0.0.0/8}
      ports:
        - port: 80
    - {}
";

    #[test]
    fn a_field_is_found_on_its_line_or_that_of_what_is_around_it() {
        let text = Text {
            before: 100,
            text: POLICY.to_owned(),
        };
        for (field, expected) in [
            ("spec", Some(104)),
            ("spec.podSelector", Some(105)),
            ("spec.ingress", Some(106)),
            ("spec.ingress[0]", Some(107)),
            ("spec.ingress[0].from[1].ipBlock", Some(110)),
            ("spec.ingress[0].from[0].podSelector", Some(108)),
            ("spec.ingress[0].ports[0].port", Some(112)),
            ("spec.ingress[1]", Some(113)),
            ("spec.ingress[7]", Some(106)),
            ("spec.egress", Some(104)),
            ("status", None),
            ("", None),
        ] {
            assert_eq!(text.line_of(field), expected, "{field}");
        }
    }

    #[test]
    fn what_is_no_document_has_no_lines() {
        for text in ["", "a: [", "1: 2\n", "a: 1\n---\na: 2\n"] {
            let text = Text {
                before: 0,
                text: text.to_owned(),
            };
            assert_eq!(text.line_of("b"), None);
        }
    }
}
