//! The kinds that are watched, and what of each matters.
//!
//! Whatever `convert` reads stands here. Nodes are listed, but not watched: a node learns its own addresses from the
//! kernel.

use super::partial::{
    Shape::{self, Fields, Items, Whole},
    Watched,
};
use crate::source::{
    Kind,
    convert::{OWNERS, REASON, mode},
};

/// Namespaces: their labels.
pub(super) struct Namespaces;

impl Watched for Namespaces {
    const KIND: Kind = Kind::Namespace;
    const PLURAL: &'static str = "namespaces";
    const METADATA: bool = true;
    const SHAPE: Shape = Fields(&[("metadata", METADATA)]);
}

/// Nodes: their addresses. They are listed once by whoever judges a cluster from outside of it.
pub(super) struct Nodes;

impl Watched for Nodes {
    const KIND: Kind = Kind::Node;
    const PLURAL: &'static str = "nodes";
    const SHAPE: Shape = Fields(&[
        ("metadata", METADATA),
        ("status", Fields(&[("addresses", Whole)])),
    ]);
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

/// Services: their addresses, and where they lead.
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
                ("type", Whole),
                ("selector", Whole),
                (
                    "ports",
                    Items(&Fields(&[
                        ("name", Whole),
                        ("protocol", Whole),
                        ("port", Whole),
                        ("targetPort", Whole),
                    ])),
                ),
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
            (REASON, Whole),
            (OWNERS[0], Whole),
            (OWNERS[1], Whole),
            (OWNERS[2], Whole),
        ]),
    ),
    (
        "ownerReferences",
        Items(&Fields(&[
            ("controller", Whole),
            ("kind", Whole),
            ("name", Whole),
        ])),
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
