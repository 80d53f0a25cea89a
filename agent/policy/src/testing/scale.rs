//! A large cluster, and changes of it whose cost is worth knowing.

use std::net::{IpAddr, Ipv4Addr};

use super::{NODE, block, namespace, own_pods, pods_of, policy, ports, rule, selector};
use crate::model::{Key, Mode, Name, NamedPort, Object, Peer, Peers, Pod, Policy, Protocol};

/// How large; all numbers are for the whole cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Namespaces, all alike.
    pub namespaces: usize,
    /// Pods.
    pub pods: usize,
    /// Sets of labels among them.
    pub label_sets: usize,
    /// Pods of [`NODE`].
    pub local: usize,
    /// Policies.
    pub policies: usize,
    /// Policies that select pods of [`NODE`].
    pub relevant: usize,
    /// Blocks in the relevant policies.
    pub cidrs: usize,
}

impl Scale {
    /// 100,000 pods and 10,000 policies.
    pub const LARGE: Self = Self {
        namespaces: 20,
        pods: 100_000,
        label_sets: 5_000,
        local: 200,
        policies: 10_000,
        relevant: 600,
        cidrs: 20_000,
    };

    /// 10,000 pods and 1,000 policies.
    pub const MEDIUM: Self = Self {
        namespaces: 20,
        pods: 10_000,
        label_sets: 1_000,
        local: 100,
        policies: 1_000,
        relevant: 200,
        cidrs: 2_000,
    };

    /// All objects, one namespace after the other.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        (0..self.namespaces).flat_map(move |at| {
            let pods = 0..self.pods / self.namespaces;
            let policies = 0..self.policies / self.namespaces;
            [self.namespace(at, "blue")]
                .into_iter()
                .chain(pods.map(move |pod| Object::Pod(self.pod(at, pod, 0))))
                .chain(policies.map(move |policy| Object::Policy(self.policy(at, policy))))
        })
    }

    /// The policy of [`Scale::edited_policy`], as it was.
    #[must_use]
    pub fn policy_before(&self) -> Object {
        Object::Policy(self.policy(0, 0))
    }

    /// A relevant policy with one more port and one more peer.
    #[must_use]
    pub fn edited_policy(&self) -> Object {
        let mut edited = self.policy(0, 0);
        let peer = pods_of("team=blue", "version=v1");
        let rules = edited.ingress.get_or_insert_default();
        rules.push(rule(Peers::Of(vec![peer]), ports("9090/TCP")));
        Object::Policy(edited)
    }

    /// A namespace whose label changed; a `team` selector of each relevant policy looks at that.
    #[must_use]
    pub fn relabelled_namespace(&self) -> Object {
        self.namespace(1, "red")
    }

    /// The namespace of [`Scale::relabelled_namespace`], as it was.
    #[must_use]
    pub fn namespace_before(&self) -> Object {
        self.namespace(1, "blue")
    }

    /// So many pods of one namespace replaced by pods of a new template, under other names and addresses.
    #[must_use]
    pub fn rollout(&self, pods: usize) -> Vec<(Key, Object)> {
        (0..pods)
            .map(|pod| {
                let old = Key::Pod(self.pod(2, pod, 0).name);
                (old, Object::Pod(self.pod(2, pod, 1)))
            })
            .collect()
    }

    fn namespace(&self, at: usize, team: &str) -> Object {
        let tier = at % 3;
        Object::Namespace(namespace(
            &format!("ns{at}"),
            &format!("team={team} tier={tier}"),
        ))
    }

    /// Label sets of one namespace.
    fn sets(&self) -> usize {
        self.label_sets / self.namespaces
    }

    fn local_per_namespace(&self) -> usize {
        self.local / self.namespaces
    }

    fn pod(&self, namespace: usize, at: usize, generation: usize) -> Pod {
        let set = at % self.sets();
        // Two versions of each application, each of a template of its own.
        let (app, version) = (set / 2, set % 2);
        let number = (namespace * self.pods / self.namespaces + at) as u32;
        let address = Ipv4Addr::from(0x0a00_0000 + ((generation as u32) << 20) + number);
        let name = Name::new(
            format!("ns{namespace}"),
            format!("app{app}-v{version}-{generation}-{at}"),
        );
        let labels = [
            ("app", format!("a{app}")),
            ("version", format!("v{version}")),
            ("pod-template-hash", format!("{set:x}{generation}")),
        ];
        Pod {
            uid: format!("00000000-0000-0000-{generation:04}-{number:012}").into(),
            name,
            labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
            node: Some(if at < self.local_per_namespace() {
                NODE.into()
            } else {
                format!("node{}", number % 1_000).into()
            }),
            addresses: vec![IpAddr::V4(address)],
            config_hash: None,
            attached: false,
            host_network: false,
            finished: false,
            terminating: false,
            ports: vec![NamedPort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 8_000 + (app % 7) as u16,
            }],
            created: 1_700_000_000 + generation as i64,
            mode: Mode::Enforce,
        }
    }

    fn policy(&self, namespace: usize, at: usize) -> Policy {
        let relevant = self.relevant / self.namespaces;
        let local_apps = self.local_per_namespace().div_ceil(2);
        let apps = self.sets() / 2;
        let app = if at < relevant {
            at % local_apps
        } else {
            local_apps + at % (apps - local_apps)
        };
        let mut made = policy(&format!("ns{namespace}/policy{at}"), "");
        made.selector = selector(&format!("app=a{app}"));
        let other = (app + at + 1) % apps;
        made.ingress = Some(vec![
            rule(
                Peers::Of(vec![
                    own_pods(&format!("app=a{other}")),
                    pods_of(
                        &format!("team=blue tier={}", at % 3),
                        &format!("app=a{}", at % apps),
                    ),
                ]),
                ports("http/TCP 443/TCP"),
            ),
            rule(
                Peers::Of(vec![pods_of("kubernetes.io/metadata.name=ns0", "")]),
                ports(&format!("{}-{}/TCP", 1_000 + at % 50, 2_000 + at % 50)),
            ),
        ]);
        if at < relevant {
            let blocks = self.blocks(namespace * relevant + at);
            let mut rules = vec![rule(Peers::Of(blocks), ports("443/TCP 53/UDP"))];
            if at.is_multiple_of(3) {
                rules.push(rule(
                    Peers::Of(vec![pods_of("team=blue", &format!("version=v{}", at % 2))]),
                    ports("http/TCP"),
                ));
            }
            made.egress = Some(rules);
        }
        made
    }

    /// The blocks of one relevant policy: short prefixes with exceptions in every tenth, else /28s to /32s.
    fn blocks(&self, policy: usize) -> Vec<Peer> {
        let each = self.cidrs / self.relevant;
        (0..each)
            .map(|at| {
                let number = (policy * each + at) as u32;
                let net = Ipv4Addr::from(0xc000_0000 + number * 16);
                match number % 10 {
                    0 => block(&format!("{net}/24"), &[&format!("{net}/30")]),
                    last => block(&format!("{net}/{}", 28 + last / 2), &[]),
                }
            })
            .collect()
    }
}
