use super::*;
use crate::api::proto::{
    AuditedNamespace, Condition, DirectionStatus, DriftStatus, MapStatus, Plugin, PodStatus,
};

fn pod(name: &str, enforced: bool) -> PodStatus {
    PodStatus {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        addresses: vec![[10, 0, 0, 1].into()],
        interface: None,
        ifindex: None,
        others: Vec::new(),
        slot: None,
        ingress: DirectionStatus::default(),
        egress: DirectionStatus::default(),
        enforced,
        reason: (!enforced).then(|| "no device leads to it".to_owned()),
        held: true,
        unheld: None,
    }
}

fn status(node: &str) -> Status {
    Status {
        version: "0.1.0".to_owned(),
        node: node.to_owned(),
        healthy: true,
        attach: "tcx".to_owned(),
        pods: vec![pod("web", true)],
        maps: vec![MapStatus {
            name: "PEERS_V4".to_owned(),
            entries: 10,
            capacity: 100,
        }],
        ..Status::default()
    }
}

fn answer(status: &Status) -> Answer {
    Answer {
        node: status.node.clone(),
        said: serde_json::to_string(status).map_err(|error| error.to_string()),
    }
}

fn set(ready: u64) -> AgentSet {
    AgentSet {
        name: "kube-system/palisade".to_owned(),
        desired: 2,
        ready,
        image: Some("palisade:0.1.0".to_owned()),
    }
}

/// A pod that is not enforced, an agent that does not answer, and whatever else may be.
pub(crate) fn troubled() -> ClusterStatus {
    let mut one = status("node1");
    one.pods.push(pod("api", false));
    one.maps[0].entries = 95;
    one.events_lost = 7;
    one.drift = DriftStatus {
        programs: 1,
        entries: 2,
        pins: 0,
        positions: 0,
    };
    one.plugin = Some(Plugin {
        wanted: true,
        installed: false,
        list: None,
        reason: Some("there is no list".to_owned()),
    });
    one.conditions = vec![Condition {
        name: "source".to_owned(),
        ok: false,
        reason: Some("the API server cannot be reached".to_owned()),
    }];
    let mut two = status("node2");
    two.version = "0.2.0".to_owned();
    two.plugin = one.plugin.clone();
    let gone = Answer {
        node: "node3".to_owned(),
        said: Err("no answer within 10 s".to_owned()),
    };
    ClusterStatus::new(vec![set(1)], vec![answer(&one), answer(&two), gone])
}

#[test]
fn a_cluster_in_which_all_is_enforced_is_healthy() {
    let all = [status("node1"), status("node2")];
    let cluster = ClusterStatus::new(vec![set(2)], all.iter().map(answer).collect());
    assert!(cluster.healthy, "{:?}", cluster.errors);
    assert_eq!(cluster.warnings, []);
    assert_eq!(cluster.pods(), (2, 2));
    assert_eq!(cluster.fill(), BTreeMap::from([("PEERS_V4", 10)]));
}

#[test]
fn pods_that_are_not_enforced_come_first_and_the_rest_follows() {
    let cluster = troubled();
    assert!(!cluster.healthy);
    let subjects = |findings: &[Finding]| -> Vec<String> {
        findings
            .iter()
            .map(|finding| finding.subject.clone())
            .collect()
    };
    let errors = [
        "pod shop/api",
        "agent",
        "source",
        "DaemonSet kube-system/palisade",
    ];
    assert_eq!(subjects(&cluster.errors), errors);
    assert_eq!(cluster.errors[0].nodes, ["node1"]);
    let warnings = ["map PEERS_V4", "plugin", "drift", "flows", "versions"];
    assert_eq!(subjects(&cluster.warnings), warnings);
}

#[test]
fn what_several_nodes_say_is_said_once() {
    let cluster = troubled();
    let mut plugin = cluster
        .warnings
        .iter()
        .filter(|finding| finding.subject == "plugin");
    assert_eq!(plugin.next().map(|finding| finding.nodes.len()), Some(2));
    assert_eq!(plugin.next(), None);
}

#[test]
fn an_answer_that_cannot_be_read_is_an_error_of_its_node() {
    let garbage = Answer {
        node: "node1".to_owned(),
        said: Ok("hello".to_owned()),
    };
    let cluster = ClusterStatus::new(vec![set(2)], vec![garbage]);
    assert!(!cluster.healthy);
    assert!(cluster.errors[0].message.contains("cannot be read"));
}

#[test]
fn a_pod_without_an_address_is_no_error() {
    let mut starting = status("node1");
    let mut pod = pod("new", false);
    pod.addresses.clear();
    starting.pods.push(pod);
    let cluster = ClusterStatus::new(vec![set(2)], vec![answer(&starting)]);
    assert!(cluster.healthy);
}

#[test]
fn what_is_in_audit_is_a_warning() {
    let mut paused = status("node1");
    paused.audit.all = true;
    paused.audit.paused_until = Some("2026-01-02T03:04:05Z".to_owned());
    let mut other = status("node2");
    for status in [&mut paused, &mut other] {
        status.audit.namespaces = vec![AuditedNamespace {
            namespace: "shop".to_owned(),
            until: None,
        }];
    }
    let cluster = ClusterStatus::new(vec![set(2)], vec![answer(&paused), answer(&other)]);
    assert!(cluster.healthy);
    let [brake, namespace] = cluster.warnings.as_slice() else {
        panic!("{:?}", cluster.warnings);
    };
    let until = "every pod is in audit until 2026-01-02T03:04:05Z: nothing is denied";
    assert_eq!((brake.message.as_str(), brake.nodes.len()), (until, 1));
    assert_eq!(
        (namespace.subject.as_str(), namespace.nodes.len()),
        ("namespace shop", 2)
    );
}
