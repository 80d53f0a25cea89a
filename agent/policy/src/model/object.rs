//! The objects as one type, for whoever carries them.

use std::{fmt, sync::Arc};

use super::{Name, Namespace, Pod, Policy, Service};

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A pod.
    Pod(Pod),
    /// A NetworkPolicy.
    Policy(Policy),
    /// A Service.
    Service(Service),
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The namespace of that name.
    Namespace(Arc<str>),
    /// The pod of that name.
    Pod(Name),
    /// The NetworkPolicy of that name.
    Policy(Name),
    /// The Service of that name.
    Service(Name),
}

impl Object {
    /// Which object it is.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Namespace(namespace) => Key::Namespace(namespace.name.clone()),
            Self::Pod(pod) => Key::Pod(pod.name.clone()),
            Self::Policy(policy) => Key::Policy(policy.name.clone()),
            Self::Service(service) => Key::Service(service.name.clone()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Policy(name) => write!(f, "networkpolicy {name}"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// All objects of one kind, as a relist finds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// All namespaces.
    Namespaces(Vec<Namespace>),
    /// All pods.
    Pods(Vec<Pod>),
    /// All NetworkPolicies.
    Policies(Vec<Policy>),
    /// All Services.
    Services(Vec<Service>),
}
