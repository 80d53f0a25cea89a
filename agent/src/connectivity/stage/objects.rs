//! The objects of a test: what is made, and what is read of it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::connectivity::{
    places::Service,
    probe::{NODE_PORT, PORTS, Spot},
};

/// The container of every pod.
pub(super) const CONTAINER: &str = "palisade";
/// A class that no controller has: nobody but the test gives these Services an address.
const BALANCER_CLASS: &str = "palisade.test/none";
/// For addresses of load balancers and external ones: TEST-NET-2 (RFC 5737), which no network has.
const BALANCERS: [u8; 3] = [198, 51, 100];

/// The Services of a lane, and whom they lead to.
pub(super) static SERVICES: &[(&str, &Selector)] = &[
    ("web", &[("pod", "b")]),
    ("other", &[("pod", "c")]),
    ("all", &[("role", "server")]),
];

pub(super) type Selector = [(&'static str, &'static str)];

/// An address that nobody has.
pub(super) fn balancer(lane: usize, number: u8) -> String {
    let [a, b, c] = BALANCERS;
    // There is room for so many.
    let lane = u8::try_from(lane % 20).unwrap_or_default();
    format!("{a}.{b}.{c}.{}", lane * 5 + number)
}

/// Two nodes that are ready and take any pod; those that take no pod by themselves only where there is no other.
pub(super) fn choose(nodes: &[DynamicObject]) -> Vec<&DynamicObject> {
    let ready = |node: &&DynamicObject| {
        let conditions = node.data["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let linux = |node: &&DynamicObject| {
        let system = &node.data["status"]["nodeInfo"]["operatingSystem"];
        system.is_null() || system == "linux"
    };
    let tainted = |node: &DynamicObject| {
        let taints = node.data["spec"]["taints"].as_array();
        taints
            .into_iter()
            .flatten()
            .any(|taint| taint["effect"] == "NoSchedule" || taint["effect"] == "NoExecute")
    };
    let mut nodes: Vec<_> = nodes.iter().filter(ready).filter(linux).collect();
    nodes.sort_by_key(|node| (tainted(node), node.metadata.name.clone()));
    if nodes.first().is_some_and(|node| !tainted(node)) {
        nodes.retain(|node| !tainted(node));
    }
    nodes.truncate(2);
    nodes
}

pub(super) fn addresses_of_node(node: &DynamicObject) -> Vec<IpAddr> {
    let addresses = node.data["status"]["addresses"].as_array();
    let addresses = addresses.into_iter().flatten();
    addresses
        .filter_map(|address| address["address"].as_str()?.parse().ok())
        .collect()
}

/// A pod that keeps to the strictest of the standards for pods.
pub(in crate::connectivity) fn pod_object(
    spot: &Spot,
    name: &str,
    node: &str,
    image: &str,
) -> Value {
    let labels: BTreeMap<_, _> = spot.labels.iter().copied().collect();
    let named = spot
        .named_ports()
        .map(|(name, port)| json!({ "name": name, "containerPort": port }));
    let datagrams = json!({ "name": "dgram", "containerPort": 8080, "protocol": "UDP" });
    let ports: Vec<_> = named.into_iter().chain([datagrams]).collect();
    let mut pod = listener(spot.name, PORTS, node, image);
    pod["metadata"] = json!({ "name": name, "labels": labels });
    pod["spec"]["containers"][0]["ports"] = json!(ports);
    pod["spec"]["securityContext"] = json!({
        "runAsNonRoot": true, "runAsUser": 65534, "runAsGroup": 65534,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    pod
}

/// A pod of a node's own network.
pub(super) fn host_object(spot: &Spot, node: &str, image: &str) -> Value {
    let mut pod = listener(spot.name, &[NODE_PORT], node, image);
    pod["metadata"] = json!({ "name": spot.name });
    pod["spec"]["hostNetwork"] = true.into();
    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": NODE_PORT }]);
    pod
}

fn listener(called: &str, ports: &[u16], node: &str, image: &str) -> Value {
    let mut arguments = ["connectivity", "serve", "--name", called]
        .map(str::to_owned)
        .to_vec();
    arguments.extend(ports.iter().map(|port| format!("--port={port}")));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": CONTAINER,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": arguments,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    })
}

/// A Service with every kind of address; which external ones is for others to say.
pub(super) fn service_object(name: &str, selector: &Selector) -> Value {
    let selector: BTreeMap<_, _> = selector.iter().copied().collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": BALANCER_CLASS,
            "ipFamilyPolicy": "PreferDualStack",
            "selector": selector,
            "ports": [
                { "name": "tcp", "port": 80, "protocol": "TCP", "targetPort": "web" },
                { "name": "udp", "port": 81, "protocol": "UDP", "targetPort": 8080 },
            ],
        },
    })
}

/// How far a pod is.
pub(super) enum State {
    Runs(Vec<IpAddr>),
    NotYet(String),
    Never(String),
}

pub(super) fn state(status: &Value) -> State {
    let container = &status["containerStatuses"][0]["state"];
    let waiting = &container["waiting"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let why = match (text(&waiting["reason"]), text(&waiting["message"])) {
        (reason, message) if message.is_empty() => reason,
        (reason, message) => format!("{reason}: {message}"),
    };
    if container["terminated"].is_object() || text(&waiting["reason"]) == "CrashLoopBackOff" {
        return State::Never(
            "its program ends; is the image one of palisade, of this version?".to_owned(),
        );
    }
    // What cannot be pulled now will not be in a minute.
    if ["ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName"]
        .contains(&text(&waiting["reason"]).as_str())
    {
        return State::Never(format!("{why}; --image says which image"));
    }
    let addresses = status["podIPs"].as_array();
    let addresses: Vec<_> = addresses
        .into_iter()
        .flatten()
        .filter_map(|address| address["ip"].as_str()?.parse().ok())
        .collect();
    if container["running"].is_object() && !addresses.is_empty() {
        return State::Runs(addresses);
    }
    match why.is_empty() {
        true => State::NotYet(text(&status["phase"])),
        false => State::NotYet(why),
    }
}

pub(super) fn addresses_of(service: &DynamicObject) -> Service {
    let list = |value: &Value, read: fn(&Value) -> Option<&str>| {
        let items = value.as_array();
        let items = items.into_iter().flatten().filter_map(read);
        items.filter_map(|text| text.parse().ok()).collect()
    };
    let (spec, status) = (&service.data["spec"], &service.data["status"]);
    let ports = spec["ports"].as_array();
    let ports = ports.into_iter().flatten().filter_map(|port| {
        let number = |key: &str| u16::try_from(port[key].as_u64()?).ok();
        Some((number("port")?, number("nodePort")?))
    });
    Service {
        cluster: list(&spec["clusterIPs"], Value::as_str),
        balancer: list(&status["loadBalancer"]["ingress"], |entry| {
            entry["ip"].as_str()
        }),
        external: list(&spec["externalIPs"], Value::as_str),
        node_ports: ports.collect(),
    }
}

/// The first endpoint of a slice.
pub(super) fn endpoint(slice: &Value) -> Option<SocketAddr> {
    let address = slice["endpoints"][0]["addresses"][0]
        .as_str()?
        .parse()
        .ok()?;
    let port = u16::try_from(slice["ports"][0]["port"].as_u64()?).ok()?;
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    fn node(name: &str, ready: &str, taint: Option<&str>) -> DynamicObject {
        let taints = taint.map(|effect| json!({ "key": "k", "effect": effect }));
        object(json!({
            "metadata": { "name": name },
            "spec": { "taints": taints.into_iter().collect::<Vec<_>>() },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        }))
    }

    #[test]
    fn nodes_that_take_no_pods_are_the_last_resort() {
        let plane = node("a", "True", Some("NoSchedule"));
        let nodes = [
            plane.clone(),
            node("b", "True", None),
            node("c", "False", None),
            node("d", "True", None),
        ];
        let names = |nodes: &[DynamicObject]| -> Vec<String> {
            let chosen = choose(nodes);
            let names = chosen.iter().filter_map(|node| node.metadata.name.clone());
            names.collect()
        };
        assert_eq!(names(&nodes), ["b", "d"]);
        assert_eq!(names(&nodes[..2]), ["b"]);
        assert_eq!(names(&[plane]), ["a"]);
        assert_eq!(names(&nodes[2..3]), [""; 0]);
    }

    #[test]
    fn a_pod_that_will_never_run_is_not_waited_for() {
        let waiting = |reason: &str| json!({ "containerStatuses": [{ "state": { "waiting": { "reason": reason } } }] });
        assert!(
            matches!(state(&waiting("ContainerCreating")), State::NotYet(why) if why == "ContainerCreating")
        );
        assert!(
            matches!(state(&waiting("ImagePullBackOff")), State::Never(why) if why.contains("--image"))
        );
        assert!(matches!(
            state(&waiting("CrashLoopBackOff")),
            State::Never(_)
        ));
        let running = json!({
            "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }],
            "containerStatuses": [{ "state": { "running": {} } }],
        });
        assert!(matches!(state(&running), State::Runs(addresses) if addresses.len() == 2));
    }

    #[test]
    fn a_service_is_read_with_all_its_addresses() {
        let service = addresses_of(&object(json!({
            "metadata": {},
            "spec": {
                "clusterIPs": ["10.96.0.1", "fd00::1"], "externalIPs": ["198.51.100.101"],
                "ports": [{ "port": 80, "nodePort": 30080 }, { "port": 81 }],
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.1" }, { "hostname": "a" }] } },
        })));
        let counts = (
            service.cluster.len(),
            service.balancer.len(),
            service.external.len(),
        );
        assert_eq!(counts, (2, 1, 1));
        assert_eq!(service.node_ports, BTreeMap::from([(80, 30080)]));
    }

    #[test]
    fn addresses_of_lanes_and_services_differ() {
        let mut all = BTreeSet::new();
        for lane in 0..20 {
            for number in 1..=3 {
                for number in [number, number + 100] {
                    assert!(all.insert(balancer(lane, number)), "{lane} {number}");
                }
            }
        }
    }

    #[test]
    fn the_outside_is_an_endpoint_that_is_no_node() {
        let slice = json!({
            "endpoints": [{ "addresses": ["192.0.2.1"] }], "ports": [{ "name": "https", "port": 6443 }],
        });
        let outside = SocketAddr::from(([192, 0, 2, 1], 6443));
        assert_eq!(endpoint(&slice), Some(outside));
        assert_eq!(endpoint(&json!({ "endpoints": [] })), None);
        let node = object(json!({
            "metadata": {},
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.0.2.1" }, { "type": "Hostname", "address": "a" },
            ] },
        }));
        assert_eq!(addresses_of_node(&node), [outside.ip()]);
    }
}
