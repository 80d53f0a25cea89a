//! What the network plugin told of this node's pods. It knows a pod's addresses before the API server does (most pods
//! run before their `podIPs` are there), and it knows them better: of a pod whose sandbox was made anew the API server
//! still tells the old ones.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use palisade_policy::model::{Name, Pod};

use crate::cni::{Attachment, record::Record};

/// The pods of this node, as the source and as the plugin told of them.
#[derive(Debug)]
pub(super) struct Attached {
    node: Arc<str>,
    told: BTreeMap<Name, Told>,
    /// By container. A sandbox that is made anew may come before the old one goes.
    sandboxes: BTreeMap<String, Sandbox>,
    order: u64,
    /// Whether all pods that start are expected to be held.
    expected: bool,
}

#[derive(Debug)]
struct Told {
    pod: Pod,
    /// Why it was started before its policies were in force.
    unheld: Option<String>,
}

#[derive(Debug)]
struct Sandbox {
    attachment: Attachment,
    name: Name,
    /// The number of its network namespace.
    namespace: Option<i32>,
    order: u64,
    /// Why it was started before its policies were in force.
    unheld: Option<String>,
}

impl Sandbox {
    fn is_of(&self, pod: &Pod) -> bool {
        let uid = self.attachment.uid.as_str();
        let known = uid.is_empty() || *pod.uid == *uid || pod.config_hash.as_deref() == Some(uid);
        self.name == pod.name && known
    }
}

impl Attached {
    /// What is known of pods that were started before.
    pub(super) fn new(node: Arc<str>, records: Vec<(Record, Option<i32>)>) -> Self {
        let mut attached = Self {
            node,
            told: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            order: 0,
            expected: false,
        };
        for (Record { attachment, unheld }, namespace) in records {
            let container = attachment.container.clone();
            attached.add(attachment, namespace);
            attached.set_unheld(&container, unheld);
        }
        attached
    }

    /// From now on, or not any more, the plugin is asked for every pod.
    pub(super) fn expect(&mut self, expected: bool) {
        self.expected = expected;
    }

    /// The source tells of a pod: what is to be believed of it. `true` if it was started without the plugin.
    pub(super) fn tell(&mut self, pod: Pod) -> (Pod, bool) {
        if pod.host_network || pod.node.as_ref() != Some(&self.node) {
            return (pod, false);
        }
        let believed = self.believe(&pod);
        let bare =
            self.expected && !believed.attached && !pod.finished && !pod.addresses.is_empty();
        let before = self.told.remove(&pod.name);
        let same = before.filter(|before| before.pod.uid == pod.uid);
        let ran = same.as_ref().is_some_and(|it| !it.pod.addresses.is_empty());
        let starts = bare && !ran;
        let unheld = if starts {
            Some("the network plugin was not asked: another program had removed it".to_owned())
        } else {
            same.and_then(|same| same.unheld)
        };
        self.told.insert(pod.name.clone(), Told { pod, unheld });
        (believed, starts)
    }

    /// The pod is gone, and its sandboxes with it, whether the plugin says so or was removed before. Of a static pod only
    /// its mirror at the API server is.
    pub(super) fn forget(&mut self, name: &Name) {
        if let Some(Told { pod, .. }) = self.told.remove(name)
            && pod.config_hash.is_none()
        {
            self.sandboxes.retain(|_, sandbox| !sandbox.is_of(&pod));
        }
    }

    /// The plugin tells of a sandbox: what is to be believed of its pod, if that is known.
    pub(super) fn add(&mut self, attachment: Attachment, namespace: Option<i32>) -> Option<Pod> {
        self.order += 1;
        let sandbox = Sandbox {
            name: Name::new(&*attachment.namespace, &*attachment.pod),
            namespace,
            order: self.order,
            unheld: None,
            attachment,
        };
        let name = sandbox.name.clone();
        self.sandboxes
            .insert(sandbox.attachment.container.clone(), sandbox);
        self.believed(&name)
    }

    /// The sandbox is gone: what is to be believed of its pod, if that is known.
    pub(super) fn remove(&mut self, container: &str) -> Option<Pod> {
        let sandbox = self.sandboxes.remove(container)?;
        self.believed(&sandbox.name)
    }

    /// The pod of a sandbox was started before its policies were in force, or (`None`) was not.
    pub(super) fn set_unheld(&mut self, container: &str, why: Option<String>) {
        if let Some(sandbox) = self.sandboxes.get_mut(container) {
            sandbox.unheld = why;
        }
    }

    /// The name of a sandbox's pod, if the source has told of that very pod.
    pub(super) fn pod(&self, container: &str) -> Option<&Name> {
        let sandbox = self.sandboxes.get(container)?;
        let Told { pod, .. } = self.told.get(&sandbox.name)?;
        sandbox.is_of(pod).then_some(&sandbox.name)
    }

    /// Whether the plugin held the pod until its policies were in force, and why not.
    pub(super) fn start(&self, name: &Name) -> (bool, Option<&str>) {
        let Some(Told { pod, unheld }) = self.told.get(name) else {
            return (false, None);
        };
        match self.sandbox(pod) {
            Some(sandbox) => (sandbox.unheld.is_none(), sandbox.unheld.as_deref()),
            None => (false, unheld.as_deref()),
        }
    }

    /// The network namespaces that hold the addresses of attached pods.
    pub(super) fn namespaces(&self) -> BTreeMap<IpAddr, i32> {
        let pods = self.told.values().map(|told| &told.pod);
        let sandboxes = pods.filter_map(|pod| self.sandbox(pod));
        let namespaces = sandboxes.flat_map(|sandbox| {
            let addresses = sandbox.attachment.addresses.iter().copied();
            addresses.zip(std::iter::repeat(sandbox.namespace))
        });
        namespaces
            .filter_map(|(address, namespace)| Some((address, namespace?)))
            .collect()
    }

    fn believed(&self, name: &Name) -> Option<Pod> {
        self.told.get(name).map(|told| self.believe(&told.pod))
    }

    fn believe(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if let Some(sandbox) = self.sandbox(&pod) {
            pod.addresses.clone_from(&sandbox.attachment.addresses);
            pod.attached = true;
        }
        pod
    }

    /// Of the pod's sandboxes the newest.
    fn sandbox(&self, pod: &Pod) -> Option<&Sandbox> {
        let sandboxes = self.sandboxes.values();
        sandboxes
            .filter(|sandbox| sandbox.is_of(pod))
            .max_by_key(|sandbox| sandbox.order)
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::model::Mode;

    use super::*;

    const NODE: &str = "node1";

    fn pod(uid: &str, addresses: &[&str]) -> Pod {
        let addresses = addresses.iter().map(|it| it.parse().expect("an address"));
        Pod {
            name: Name::new("x", "a"),
            uid: uid.into(),
            labels: BTreeMap::default(),
            node: Some(NODE.into()),
            config_hash: None,
            addresses: addresses.collect(),
            attached: false,
            host_network: false,
            finished: false,
            terminating: false,
            ports: Vec::new(),
            created: 0,
            mode: Mode::Enforce,
        }
    }

    fn attachment(container: &str, uid: &str, address: &str) -> Attachment {
        Attachment {
            container: container.to_owned(),
            namespace: "x".to_owned(),
            pod: "a".to_owned(),
            uid: uid.to_owned(),
            addresses: vec![address.parse().expect("an address")],
            netns: "/run/netns/1".into(),
        }
    }

    fn attached() -> Attached {
        Attached::new(NODE.into(), Vec::new())
    }

    fn claims(pod: &Pod) -> (Vec<String>, bool) {
        let addresses = pod.addresses.iter().map(ToString::to_string);
        (addresses.collect(), pod.attached)
    }

    fn of(address: &str, attached: bool) -> (Vec<String>, bool) {
        (vec![address.to_owned()], attached)
    }

    #[test]
    fn an_attached_pod_has_the_addresses_of_its_newest_sandbox() {
        let mut attached = attached();
        assert_eq!(
            attached.add(attachment("one", "1", "10.0.0.1"), Some(7)),
            None
        );
        let (told, _) = attached.tell(pod("1", &[]));
        assert_eq!(claims(&told), of("10.0.0.1", true));
        assert_eq!(attached.namespaces().len(), 1);
        // Made anew: the old one goes late, and the API server is later still.
        let new = attached.add(attachment("two", "1", "10.0.0.2"), None);
        assert_eq!(new.as_ref().map(claims), Some(of("10.0.0.2", true)));
        let (told, _) = attached.tell(pod("1", &["10.0.0.1"]));
        assert_eq!(claims(&told), of("10.0.0.2", true));
        assert_eq!(
            attached.remove("one").as_ref().map(claims),
            Some(of("10.0.0.2", true))
        );
        assert_eq!(
            attached.remove("two").as_ref().map(claims),
            Some(of("10.0.0.1", false))
        );
        assert_eq!(attached.remove("two"), None);
    }

    #[test]
    fn a_sandbox_is_that_of_one_uid() {
        let mut attached = attached();
        attached.tell(pod("old", &["10.0.0.1"]));
        let old = attached.add(attachment("two", "new", "10.0.0.2"), None);
        assert_eq!(old.as_ref().map(claims), Some(of("10.0.0.1", false)));
        assert_eq!(attached.pod("two"), None);
        let (told, _) = attached.tell(pod("new", &[]));
        assert_eq!(claims(&told), of("10.0.0.2", true));
        assert_eq!(attached.pod("two"), Some(&Name::new("x", "a")));
    }

    #[test]
    fn a_static_pod_is_known_by_its_hash() {
        let mut attached = attached();
        attached.add(attachment("one", "hash", "10.0.0.1"), None);
        let (told, _) = attached.tell(Pod {
            config_hash: Some("hash".into()),
            ..pod("1", &[])
        });
        assert_eq!(claims(&told), of("10.0.0.1", true));
    }

    #[test]
    fn with_a_pod_its_sandboxes_go_unless_it_is_a_mirror() {
        let mut attached = attached();
        let name = Name::new("x", "a");
        for (hash, left) in [(None, 0), (Some("hash"), 1)] {
            attached.add(attachment("one", hash.unwrap_or("1"), "10.0.0.1"), None);
            attached.tell(Pod {
                config_hash: hash.map(Into::into),
                ..pod("1", &[])
            });
            attached.forget(&name);
            assert_eq!(attached.sandboxes.len(), left, "{hash:?}");
        }
    }

    #[test]
    fn pods_of_other_nodes_and_of_the_node_itself_are_as_they_are_told() {
        let mut attached = attached();
        attached.add(attachment("one", "1", "10.0.0.1"), None);
        for other in [
            Pod {
                node: Some("node2".into()),
                ..pod("1", &["10.0.0.9"])
            },
            Pod {
                host_network: true,
                ..pod("1", &["10.0.0.9"])
            },
        ] {
            assert_eq!(claims(&attached.tell(other).0), of("10.0.0.9", false));
        }
    }

    #[test]
    fn a_pod_that_starts_without_the_plugin_is_told_once() {
        let mut attached = attached();
        assert!(
            !attached.tell(pod("1", &["10.0.0.1"])).1,
            "it was there before"
        );
        attached.expect(true);
        assert!(!attached.tell(pod("1", &["10.0.0.1"])).1, "it is known");
        assert!(!attached.tell(pod("2", &[])).1, "it has not started");
        assert!(attached.tell(pod("2", &["10.0.0.2"])).1);
        assert!(!attached.tell(pod("2", &["10.0.0.2"])).1);
        let name = Name::new("x", "a");
        assert!(attached.start(&name).1.is_some());
        attached.add(attachment("one", "3", "10.0.0.3"), None);
        assert!(!attached.tell(pod("3", &["10.0.0.3"])).1);
        assert_eq!(attached.start(&name), (true, None));
        attached.set_unheld("one", Some("late".to_owned()));
        assert_eq!(attached.start(&name), (false, Some("late")));
    }
}
