//! From API objects, as decoded JSON, to the model: the one door, behind which nobody reads a raw object.
//!
//! What the API server would default is defaulted here, so that files mean what they would mean in a
//! cluster: `policyTypes`, `protocol`, `podSelector`, the namespace's name label; absent, null and empty
//! lists are one. (Null *inside* a list is not: the API server reads it as an empty object, which in
//! `ingress` allows everything. Here it is an error.)
//!
//! Invalid objects never vanish. Of a policy everything readable is used and what is not denies: see
//! [`Effect`]. Other objects without their identity or labels are refused as a whole, for a guess
//! could allow; whoever calls keeps the last good state. Each problem is an [`Issue`].

use palisade_policy::model::{Name, Namespace};
use serde_json::Value;

use self::field::{Fault, Field};
use super::{Effect, Issue, Key, Kind, Object, Problem};

pub mod address;
mod field;
mod labels;
pub(crate) mod mode;
mod node;
mod pod;
mod policy;
mod service;
mod workload;

pub use self::workload::{Described, PodNote, PolicyNote, Workload, describe};
pub(crate) use self::{
    labels::name_label,
    workload::{OWNERS, REASON, describe_as},
};

/// Lists in lists (`kind: List`) deeper than this are refused.
const MAX_DEPTH: usize = 8;

/// What a document yields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Its objects, in their order; those of other kinds are left out.
    pub objects: Vec<Object>,
    /// The objects that could not be read.
    pub refused: Vec<Key>,
    /// What is wrong with either.
    pub issues: Vec<Issue>,
}

/// A document whose objects cannot be told: no object, or one without kind or name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Unidentified {
    /// The field, as `items[3].metadata.name`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Converts a document: an object, a `List`, or nothing (null).
///
/// # Errors
///
/// When an object cannot be identified.
pub fn convert(document: &Value) -> Result<Converted, Unidentified> {
    let mut converted = Converted::default();
    if !document.is_null() {
        let wanted = |of: Type<'_>| of.known().is_some();
        let take = &mut |object: Field<'_>, of: Type<'_>| match of.known() {
            Some(kind) => single(object, kind, &mut converted),
            None => Ok(()),
        };
        walk(Field::root(document), None, 0, wanted, take)?;
    }
    Ok(converted)
}

/// Converts one object whose kind is known, and which need not name it.
///
/// # Errors
///
/// When it has no name.
pub fn convert_as(kind: Kind, object: &Value) -> Result<Converted, Unidentified> {
    let mut converted = Converted::default();
    single(Field::root(object), kind, &mut converted)?;
    Ok(converted)
}

impl From<Fault> for Unidentified {
    fn from(Fault { field, problem }: Fault) -> Self {
        Self { field, problem }
    }
}

/// The problems of one object.
struct Report<'a> {
    key: &'a Key,
    issues: &'a mut Vec<Issue>,
}

impl Report<'_> {
    fn add(&mut self, Fault { field, problem }: Fault, effect: Effect) {
        self.issues.push(Issue {
            file: None,
            object: Some(self.key.clone()),
            field,
            problem,
            effect,
        });
    }
}

/// Group, version and kind. The items of a typed list (`PodList`) carry none of their own.
#[derive(Clone, Copy)]
struct Type<'a> {
    group: &'a str,
    kind: &'a str,
}

impl<'a> Type<'a> {
    fn of(object: Field<'a>, implied: Option<Self>) -> Result<Self, Fault> {
        match (implied, object.value.get("kind")) {
            (Some(implied), None | Some(Value::Null)) => Ok(implied),
            _ => {
                let kind = object.required("kind")?;
                let version = object.required("apiVersion")?;
                Ok(Self {
                    kind: object.text_of(kind, "kind")?,
                    group: object
                        .text_of(version, "apiVersion")?
                        .rsplit_once('/')
                        .map_or("", |(group, _)| group),
                })
            }
        }
    }

    /// The kind of object, if it matters here. `extensions` is the group in which NetworkPolicy began;
    /// its objects mean the same, and to pass over a policy would open its pods.
    fn known(self) -> Option<Kind> {
        match (self.group, self.kind) {
            ("", "Namespace") => Some(Kind::Namespace),
            ("", "Node") => Some(Kind::Node),
            ("", "Pod") => Some(Kind::Pod),
            ("", "Service") => Some(Kind::Service),
            ("networking.k8s.io" | "extensions", "NetworkPolicy") => Some(Kind::Policy),
            _ => None,
        }
    }
}

/// Hands over the object, or each object of the list, of the types that are wanted.
fn walk(
    object: Field<'_>,
    implied: Option<Type<'_>>,
    depth: usize,
    wanted: fn(Type<'_>) -> bool,
    take: &mut dyn FnMut(Field<'_>, Type<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    object.object()?;
    let of = Type::of(object, implied)?;
    if wanted(of) {
        return take(object, of);
    }
    let Some(kind) = of.kind.strip_suffix("List") else {
        return Ok(());
    };
    let Some(items) = object.get("items") else {
        return Ok(());
    };
    if depth == MAX_DEPTH {
        return Err(items.fault(Problem::Conflict("lists are nested too deep")));
    }
    let group = of.group;
    let implied = (!kind.is_empty()).then_some(Type { group, kind });
    if implied.is_some_and(|implied| !wanted(implied)) {
        return Ok(());
    }
    for item in items.list()? {
        walk(item, implied, depth + 1, wanted, take)?;
    }
    Ok(())
}

fn single(object: Field<'_>, kind: Kind, into: &mut Converted) -> Result<(), Fault> {
    let metadata = object.required("metadata")?;
    let metadata = object.child("metadata", metadata);
    metadata.object()?;
    let name = metadata.required("name")?;
    let name = metadata.text_of(name, "name")?;
    let namespace = match metadata.get("namespace") {
        _ if !kind.is_namespaced() => "",
        None => "default",
        Some(namespace) => match namespace.text()? {
            "" => "default",
            namespace => namespace,
        },
    };
    let key = Key::new(kind, Name::new(namespace, name));
    let mut report = Report {
        key: &key,
        issues: &mut into.issues,
    };
    let converted = match kind {
        Kind::Namespace => labels::of_namespace(metadata, &key.name.name).map(|labels| {
            let (mode, mode_until) = mode::of_namespace(metadata, &mut report);
            Object::Namespace(Namespace {
                name: key.name.name.clone(),
                labels,
                mode,
                pod_modes: mode::pods_choose(metadata, &mut report),
                mode_until,
            })
        }),
        Kind::Node => Ok(Object::Node(node::convert(object, &mut report))),
        Kind::Pod => pod::convert(object, metadata, &mut report).map(Object::Pod),
        Kind::Policy => Ok(Object::Policy(policy::convert(
            object,
            metadata,
            &mut report,
        ))),
        Kind::Service => Ok(Object::Service(service::convert(object, &mut report))),
    };
    match converted {
        Ok(object) => into.objects.push(object),
        Err(fault) => {
            report.add(fault, Effect::ObjectKept);
            into.refused.push(key);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
