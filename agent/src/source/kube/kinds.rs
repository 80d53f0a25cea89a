//! The kinds that are watched, and what of each matters.
//!
//! Whatever `convert` reads stands here. Nodes are not watched: a node learns its own addresses from the kernel.

use super::partial::{
    Shape::{self, Fields, Items, Whole},
    Watched,
};
use crate::source::{Kind, convert::mode};

/// Namespaces: their labels.
pub(super) struct Namespaces;

impl Watched for Namespaces {
    const KIND: Kind = Kind::Namespace;
    const PLURAL: &'static str = "namespaces";
    const METADATA: bool = true;
    const SHAPE: Shape = Fields(&[("metadata", METADATA)]);
}

/// Pods: who they are, where they run, their addresses and their named ports.
pub(super) struct Pods;

impl Watched for Pods {
    const KIND: Kind = Kind::Pod;
    const PLURAL: &'static str = "pods";
    const SHAPE: Shape = Fields(&[
        ("metadata", METADATA),
        (
            "spec",
            Fields(&[
                ("nodeName", Whole),
                ("hostNetwork", Whole),
                ("containers", CONTAINERS),
                ("initContainers", CONTAINERS),
            ]),
        ),
        (
            "status",
            Fields(&[("phase", Whole), ("podIP", Whole), ("podIPs", Whole)]),
        ),
    ]);
}

/// Policies: all that they say, for a field nobody knows denies.
pub(super) struct Policies;

impl Watched for Policies {
    const KIND: Kind = Kind::Policy;
    const GROUP: &'static str = "networking.k8s.io";
    const PLURAL: &'static str = "networkpolicies";
    const SHAPE: Shape = Fields(&[("metadata", METADATA), ("spec", Whole)]);
}

/// Services: their addresses.
pub(super) struct Services;

impl Watched for Services {
    const KIND: Kind = Kind::Service;
    const PLURAL: &'static str = "services";
    const SHAPE: Shape = Fields(&[
        ("metadata", METADATA),
        (
            "spec",
            Fields(&[
                ("clusterIP", Whole),
                ("clusterIPs", Whole),
                ("externalIPs", Whole),
            ]),
        ),
        ("status", Fields(&[("loadBalancer", Whole)])),
    ]);
}

const METADATA: Shape = Fields(&[
    ("name", Whole),
    ("namespace", Whole),
    ("uid", Whole),
    ("resourceVersion", Whole),
    ("labels", Whole),
    (
        "annotations",
        Fields(&[
            ("kubernetes.io/config.hash", Whole),
            (mode::MODE, Whole),
            (mode::MODE_UNTIL, Whole),
            (mode::POD_MODE, Whole),
        ]),
    ),
    ("creationTimestamp", Whole),
    ("deletionTimestamp", Whole),
]);

const CONTAINERS: Shape = Items(&Fields(&[
    ("restartPolicy", Whole),
    (
        "ports",
        Items(&Fields(&[
            ("name", Whole),
            ("protocol", Whole),
            ("containerPort", Whole),
        ])),
    ),
]));
