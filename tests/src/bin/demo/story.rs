//! The story: who is there, and which policies come one after the other.

use palisade_tests::{
    lab::{Cni, Lab, Plan, node_addresses},
    probe::Protocol,
};
use serde_json::{Value, json};

/// Somebody of the story.
pub(super) struct Actor {
    /// What the table calls it.
    pub(super) short: &'static str,
    /// Its name in the lab: `ns/pod`, or of a host outside.
    pub(super) name: &'static str,
    /// Where a pod is; a host outside has an address instead.
    pub(super) place: Place,
    /// What it serves.
    pub(super) serves: Option<(u16, Protocol, &'static str)>,
}

/// Where somebody is.
pub(super) enum Place {
    /// On a node, with a label.
    Pod(&'static str, (&'static str, &'static str)),
    /// At an address.
    Outside([u8; 4]),
}

/// Everybody, in the order of the table.
pub(super) const ACTORS: &[Actor] = &[
    Actor {
        short: "frontend",
        name: "shop/frontend",
        place: Place::Pod("node1", ("tier", "frontend")),
        serves: Some((80, Protocol::Tcp, "http")),
    },
    Actor {
        short: "api",
        name: "shop/api",
        place: Place::Pod("node2", ("tier", "api")),
        serves: Some((8080, Protocol::Tcp, "http")),
    },
    Actor {
        short: "db",
        name: "shop/db",
        place: Place::Pod("node1", ("tier", "db")),
        serves: Some((5432, Protocol::Tcp, "postgres")),
    },
    Actor {
        short: "stranger",
        name: "elsewhere/stranger",
        place: Place::Pod("node1", ("app", "stranger")),
        serves: None,
    },
    Actor {
        short: "dns",
        name: "kube-system/dns",
        place: Place::Pod("node2", ("k8s-app", "kube-dns")),
        serves: Some((53, Protocol::Udp, "dns")),
    },
    Actor {
        short: "visitor",
        name: "198.51.100.9",
        place: Place::Outside([198, 51, 100, 9]),
        serves: None,
    },
    Actor {
        short: "partner",
        name: "203.0.113.7",
        place: Place::Outside([203, 0, 113, 7]),
        serves: Some((443, Protocol::Tcp, "https")),
    },
    Actor {
        short: "excepted",
        name: "203.0.113.66",
        place: Place::Outside([203, 0, 113, 66]),
        serves: Some((443, Protocol::Tcp, "https")),
    },
];

/// Who connects: those inside, and one of those outside.
pub(super) fn clients() -> impl Iterator<Item = &'static Actor> {
    let servers_only = ["dns", "partner", "excepted"];
    ACTORS
        .iter()
        .filter(move |actor| !servers_only.contains(&actor.short))
}

/// Who serves.
pub(super) fn servers() -> impl Iterator<Item = &'static Actor> {
    ACTORS.iter().filter(|actor| actor.serves.is_some())
}

/// One policy file.
pub(super) struct Chapter {
    /// What it is for.
    pub(super) title: &'static str,
    /// Its name among the manifests.
    pub(super) file: &'static str,
    /// What it says.
    pub(super) yaml: &'static str,
}

/// The files, in the order they are put in.
pub(super) const CHAPTERS: &[Chapter] = &[
    Chapter {
        title: "Nothing gets into the shop any more",
        file: "1-default-deny-ingress.yaml",
        yaml: include_str!("../../../demo/1-default-deny-ingress.yaml"),
    },
    Chapter {
        title: "Everybody may see the frontend",
        file: "2-frontend.yaml",
        yaml: include_str!("../../../demo/2-frontend.yaml"),
    },
    Chapter {
        title: "The frontend may ask the api",
        file: "3-api.yaml",
        yaml: include_str!("../../../demo/3-api.yaml"),
    },
    Chapter {
        title: "The api may ask the database",
        file: "4-db.yaml",
        yaml: include_str!("../../../demo/4-db.yaml"),
    },
    Chapter {
        title: "Nothing gets out of the shop any more",
        file: "5-default-deny-egress.yaml",
        yaml: include_str!("../../../demo/5-default-deny-egress.yaml"),
    },
    Chapter {
        title: "Names may be looked up",
        file: "6-dns.yaml",
        yaml: include_str!("../../../demo/6-dns.yaml"),
    },
    Chapter {
        title: "Each tier may reach the next",
        file: "7-tiers.yaml",
        yaml: include_str!("../../../demo/7-tiers.yaml"),
    },
    Chapter {
        title: "The api may call a partner outside, but for one address",
        file: "8-partner.yaml",
        yaml: include_str!("../../../demo/8-partner.yaml"),
    },
];

/// The nodes.
pub(super) const NODES: [&str; 2] = ["node1", "node2"];

/// Makes everybody.
pub(super) fn stage(cni: Cni) -> anyhow::Result<Lab> {
    let mut lab = Lab::new(&Plan::of(2, cni))?;
    for actor in ACTORS {
        match actor.place {
            Place::Pod(node, _) => lab.add_pod(actor.name, node)?,
            Place::Outside(address) => lab.add_outside(actor.name, &[address.into()])?,
        };
        if let Some((port, protocol, _)) = actor.serves {
            lab.serve(actor.name, port, protocol)?;
        }
    }
    Ok(lab)
}

/// Everybody as objects of the API.
pub(super) fn objects(lab: &Lab) -> Vec<Value> {
    let node = |(number, name)| {
        let addresses =
            node_addresses(number).map(|ip| json!({ "type": "InternalIP", "address": ip }));
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "status": { "addresses": addresses },
        })
    };
    let namespace = |name| {
        let labels = json!({ "kubernetes.io/metadata.name": name });
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
    };
    let nodes = NODES.into_iter().enumerate().map(node);
    let namespaces = ["shop", "elsewhere", "kube-system"]
        .into_iter()
        .map(namespace);
    let pods = ACTORS.iter().filter_map(|actor| pod(lab, actor));
    nodes.chain(namespaces).chain(pods).collect()
}

fn pod(lab: &Lab, actor: &Actor) -> Option<Value> {
    let Place::Pod(node, (key, value)) = actor.place else {
        return None;
    };
    let (namespace, name) = actor.name.split_once('/')?;
    let ports: Vec<_> = actor
        .serves
        .iter()
        .map(|(port, protocol, name)| {
            json!({ "name": name, "containerPort": port, "protocol": protocol.to_string() })
        })
        .collect();
    let addresses = &lab.pod(actor.name).endpoint.addresses;
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    Some(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": { key: value },
            "uid": format!("{namespace}-{name}"),
        },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "ports": ports }] },
        "status": { "phase": "Running", "podIPs": addresses },
    }))
}
