//! Where objects come from. A source turns what it watches into [`Batch`]es; nothing else reaches the engine.

use std::{fmt, sync::Arc, time::Instant};

use palisade_policy::model::{self, Name, Namespace, Pod, Policy, Service};

pub use self::{issue::*, node::Node, notice::Notice};

pub mod convert;
pub mod file;
mod issue;
pub mod kube;
mod node;
mod notice;

/// An object, converted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the object of that kind")]
pub enum Object {
    Namespace(Namespace),
    Node(Node),
    Pod(Pod),
    Policy(Policy),
    Service(Service),
}

impl Object {
    /// Its kind and name.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Namespace(it) => Key::new(Kind::Namespace, Name::new("", it.name.clone())),
            Self::Node(it) => Key::new(Kind::Node, Name::new("", it.name.clone())),
            Self::Pod(it) => Key::new(Kind::Pod, it.name.clone()),
            Self::Policy(it) => Key::new(Kind::Policy, it.name.clone()),
            Self::Service(it) => Key::new(Kind::Service, it.name.clone()),
        }
    }

    /// As policy knows it; nodes it does not know.
    #[must_use]
    pub fn into_model(self) -> Option<model::Object> {
        match self {
            Self::Namespace(it) => Some(model::Object::Namespace(it)),
            Self::Node(_) => None,
            Self::Pod(it) => Some(model::Object::Pod(it)),
            Self::Policy(it) => Some(model::Object::Policy(it)),
            Self::Service(it) => Some(model::Object::Service(it)),
        }
    }
}

/// The kinds that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the kind of that name")]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    Policy,
    Service,
}

impl Kind {
    /// The `kind` field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Policy => "NetworkPolicy",
            Self::Service => "Service",
        }
    }

    /// Whether objects of the kind belong to a namespace.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }
}

/// Which object: kind and name; the namespace is empty where the kind has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: Name,
}

impl Key {
    /// The key of an object.
    #[must_use]
    pub const fn new(kind: Kind, name: Name) -> Self {
        Self { kind, name }
    }
}

impl Key {
    /// As policy knows it; nodes it does not know.
    #[must_use]
    pub fn into_model(self) -> Option<model::Key> {
        let Self { kind, name } = self;
        match kind {
            Kind::Namespace => Some(model::Key::Namespace(name.name)),
            Kind::Node => None,
            Kind::Pod => Some(model::Key::Pod(name)),
            Kind::Policy => Some(model::Key::Policy(name)),
            Kind::Service => Some(model::Key::Service(name)),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name } = self;
        if kind.is_namespaced() {
            write!(f, "{} {name}", kind.name())
        } else {
            write!(f, "{} {}", kind.name(), name.name)
        }
    }
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new or other than before.
    Apply(Object),
    /// It is gone.
    Delete(Key),
}

/// All that changed at once.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The changes, in their order.
    pub changes: Vec<Change>,
    /// Every problem that stands after them; replaces those of earlier batches.
    pub issues: Arc<[Issue]>,
    /// Whether the source has told every object at least once; nothing is applied before.
    pub synced: bool,
    /// Why the source cannot be reached; what it told last stays.
    pub unreachable: Option<String>,
    /// When the source learned of the first of them.
    pub seen: Instant,
    /// The questions that these changes and all before answer.
    pub answers: Vec<Ticket>,
}

/// The number of a question.
pub type Ticket = u64;

/// Asks for all policies of a namespace that the API server has at this moment: whatever a batch says that answers it,
/// or one before, is at least as new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its number.
    pub ticket: Ticket,
    /// The namespace.
    pub namespace: Arc<str>,
    /// Nobody wants to know later.
    pub until: Instant,
}
