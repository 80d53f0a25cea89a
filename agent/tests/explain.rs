//! `palisade explain` on files: its exit codes and what it prints are what other programs rely on.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

/// A shop of three tiers, with a default deny; `scratch` has no policies.
const SHOP: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: scratch}}
- {apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
- {apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {selector: {app: api}, ports: [{port: 80, targetPort: http}, {port: 9090}]}}
- {apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: 10.96.0.7}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {nodeName: n2, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.1.2}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n2}
status: {podIP: 10.0.1.3}
---
apiVersion: v1
kind: Pod
metadata: {name: pending, namespace: shop, labels: {app: db}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: job, namespace: scratch}
spec: {template: {metadata: {labels: {app: job}}}}
---
apiVersion: v1
kind: Pod
metadata: {name: free, namespace: scratch, labels: {app: web}}
spec: {nodeName: n1}
status: {podIP: 10.0.0.9}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec: {podSelector: {}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{port: 5432}]
  egress:
  - to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.64/26]}}]
"#;

/// A folder of manifests, gone when dropped.
struct Manifests(PathBuf);

impl Manifests {
    fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("palisade-explain-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        for (name, text) in files {
            fs::write(path.join(name), text).unwrap();
        }
        Self(path)
    }

    fn explain(&self, from: &str, to: &str, more: &[&str]) -> Output {
        palisade()
            .args(["explain", "--from", from, "--to", to, "--manifests"])
            .arg(&self.0)
            .args(more)
            .output()
            .unwrap()
    }

    fn json(&self, from: &str, to: &str, more: &[&str]) -> Value {
        let output = self.explain(from, to, &[more, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn palisade() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.env_clear();
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_exit_code_is_the_answer() {
    let shop = Manifests::new(&[("shop.yaml", SHOP)]);
    for (from, to, port, expected) in [
        ("shop/web", "shop/api", "8080/TCP", 0),
        ("shop/web", "shop/api", "8080", 0),
        ("shop/web", "shop/api", "8080/UDP", 1),
        ("shop/web", "shop/api", "8081/TCP", 1),
        ("shop/web", "shop/api", "", 1),
        ("shop/web", "scratch/free", "", 0),
        ("shop/web", "scratch/free", "53/UDP", 0),
        ("scratch/free", "shop/api", "8080", 1),
        ("shop/api", "shop/db", "5432/tcp", 0),
        ("10.0.1.2", "10.0.1.3", "5432/tcp", 0),
        ("shop/web", "shop/db", "5432/tcp", 1),
        ("198.51.100.1", "shop/web", "80", 1),
        ("198.51.100.1", "scratch/free", "80", 0),
        ("shop/db", "203.0.113.1", "443", 0),
        ("shop/db", "203.0.113.1", "", 0),
        ("shop/db", "203.0.113.65", "443", 1),
        ("shop/db", "198.51.100.1", "443", 1),
        // A pod and its node, and a pod and itself.
        ("192.168.0.1", "shop/web", "80", 0),
        ("192.168.0.1", "shop/api", "8080", 1),
        ("shop/db", "shop/db", "", 0),
        // A pod whose address is not known yet is told by its labels.
        ("shop/pending", "shop/api", "8080", 1),
        ("shop/api", "shop/pending", "5432", 0),
        // A Service, all of its backends.
        ("shop/web", "service/shop/api", "80", 0),
        ("shop/web", "svc/shop/api", "", 1),
        ("scratch/free", "service/shop/api", "80", 1),
        ("shop/web", "service/shop/api", "81", 3),
        // Two addresses that are no pods.
        ("198.51.100.1", "203.0.113.1", "", 0),
        // It cannot be told.
        ("shop/none", "shop/api", "8080", 3),
        ("shop/web", "none/none", "", 3),
        ("service/shop/db", "shop/db", "", 3),
        ("shop/web", "service/shop/none", "", 3),
        ("fd00::5", "shop/db", "5432", 3),
        ("shop/api", "10.96.0.7", "5432", 3),
    ] {
        let more: &[&str] = if port.is_empty() {
            &[]
        } else {
            &["--port", port]
        };
        let output = shop.explain(from, to, more);
        assert_eq!(code(&output), expected, "{from} -> {to} {port}: {output:?}");
        assert_eq!(
            output.stdout.is_empty(),
            expected == 3,
            "{from} -> {to} {port}"
        );
        assert_eq!(
            output.stderr.is_empty(),
            expected != 3,
            "{from} -> {to} {port}: {output:?}"
        );
    }
}

#[test]
fn wrong_usage_exits_2() {
    let shop = Manifests::new(&[]);
    for (from, to, more) in [
        ("web", "shop/api", &[][..]),
        ("shop/web", "shop/api/x", &[]),
        ("shop/web", "10.0.0.0/8", &[]),
        ("shop/web", "shop/api", &["--port", "http"]),
        ("shop/web", "shop/api", &["--port", "80/ICMP"]),
        ("shop/web", "shop/api", &["--port", "0"]),
        ("shop/web", "shop/api", &["-o", "yaml"]),
        ("shop/web", "shop/api", &["--nonsense"]),
    ] {
        let output = shop.explain(from, to, more);
        assert_eq!(code(&output), 2, "{from} -> {to} {more:?}");
        assert!(output.stdout.is_empty());
    }
    for arguments in [
        &["explain", "--from", "a/b"][..],
        &["explain"],
        &[],
        &["nonsense"],
    ] {
        assert_eq!(
            code(&palisade().args(arguments).output().unwrap()),
            2,
            "{arguments:?}"
        );
    }
}

#[test]
fn a_denial_names_both_directions_the_isolating_policies_and_the_nearest_rule() {
    let shop = Manifests::new(&[("shop.yaml", SHOP)]);
    let output = shop.explain("shop/web", "shop/db", &["--port", "5432/TCP"]);
    assert_eq!(
        text(&output.stdout),
        "shop/web (10.0.0.1) -> shop/db (10.0.1.3) 5432/TCP: denied\n\
         \n\
         egress of shop/web: allowed\n  no policy isolates it\n\
         \n\
         ingress of shop/db: denied\n  isolated by db, default-deny\n  \
         not by db ingress[0]: from[0]: the pod's labels fail app=api\n"
    );
}

#[test]
fn an_allowance_names_the_rule() {
    let shop = Manifests::new(&[("shop.yaml", SHOP)]);
    let output = shop.explain("shop/web", "shop/api", &["--port", "8080/TCP"]);
    assert_eq!(
        text(&output.stdout),
        "shop/web (10.0.0.1) -> shop/api (10.0.1.2) 8080/TCP: allowed\n\
         \n\
         egress of shop/web: allowed\n  no policy isolates it\n\
         \n\
         ingress of shop/api: allowed\n  isolated by api, default-deny\n  allowed by api ingress[0]\n"
    );
}

#[test]
fn without_a_port_it_says_what_passes() {
    let shop = Manifests::new(&[("shop.yaml", SHOP)]);
    let output = shop.explain("shop/web", "shop/api", &[]);
    assert_eq!(code(&output), 1);
    assert_eq!(
        text(&output.stdout),
        "shop/web (10.0.0.1) -> shop/api (10.0.1.2): partly allowed\n  passes: TCP 8080\n\
         \n\
         egress of shop/web: allowed\n  no policy isolates it\n\
         \n\
         ingress of shop/api: partly allowed\n  isolated by api, default-deny\n  passes: TCP 8080\n  \
         allowed by api ingress[0]\n"
    );
}

#[test]
fn json_has_the_documented_keys() {
    let shop = Manifests::new(&[("shop.yaml", SHOP)]);
    let answer = shop.json("shop/api", "shop/db", &["--port", "5433/TCP"]);
    assert_eq!(
        answer,
        serde_json::json!({
            "from": {"namespace": "shop", "pod": "api", "address": "10.0.1.2"},
            "to": {"namespace": "shop", "pod": "db", "address": "10.0.1.3"},
            "port": 5433,
            "protocol": "TCP",
            "allowed": false, "audited": false,
            "passes": {"tcp": ["5432"], "udp": [], "sctp": [], "other": false},
            "egress": {
                "namespace": "shop", "pod": "api", "allowed": true, "policies": [], "allowing": [], "misses": [],
                "passes": {"tcp": ["0-65535"], "udp": ["0-65535"], "sctp": ["0-65535"], "other": true},
            },
            "ingress": {
                "namespace": "shop", "pod": "db", "allowed": false, "policies": ["db", "default-deny"], "allowing": [],
                "misses": [{"policy": "db", "rule": "ingress[0]", "reason": "its ports are TCP 5432"}],
                "passes": {"tcp": ["5432"], "udp": [], "sctp": [], "other": false},
            },
        })
    );
    let exempt = shop.json("192.168.0.1", "shop/web", &[]);
    assert_eq!(
        (&exempt["exempt"], &exempt["allowed"]),
        (&"node".into(), &true.into())
    );
    assert_eq!(
        (&exempt["egress"], &exempt["ingress"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn a_service_is_answered_for_pod_by_pod() {
    let shop = Manifests::new(&[("shop.yaml", SHOP)]);
    let output = shop.explain("scratch/free", "service/shop/api", &["--port", "80"]);
    assert_eq!(
        text(&output.stdout),
        "scratch/free -> Service shop/api 80/TCP: denied, 0 of 1 backends\n\
         \n\
         scratch/free (10.0.0.9) -> shop/api (10.0.1.2) 8080/TCP: denied\n\
         \n\
         egress of scratch/free: allowed\n  no policy isolates it\n\
         \n\
         ingress of shop/api: denied\n  isolated by api, default-deny\n  \
         not by api ingress[0]: from[0]: the pod is in another namespace\n"
    );
    let answer = shop.json("shop/web", "service/shop/api", &["--port", "80"]);
    let port = &answer["ports"][0];
    assert_eq!(
        (&answer["allowed"], &port["port"]),
        (&true.into(), &80.into())
    );
    let backend = &port["backends"][0];
    assert_eq!(
        (&backend["pod"], &backend["port"]),
        (&"api".into(), &8080.into())
    );
    assert_eq!(backend["explanation"]["allowed"], true);
}

#[test]
fn what_depends_on_an_address_that_nobody_knows_is_not_told() {
    let shop = Manifests::new(&[("shop.yaml", SHOP)]);
    let output = shop.explain("shop/db", "scratch/job", &["--port", "443"]);
    assert_eq!(code(&output), 3);
    assert_eq!(
        text(&output.stdout),
        "shop/db (10.0.1.3) -> scratch/job 443/TCP: not known\n  \
         It depends on whether 203.0.113.0/24 of db egress[0] holds the address of scratch/job, which is not known.\n\
         \n\
         egress of shop/db: denied\n  isolated by db\n  \
         not by db egress[0]: to[0]: the address is outside 203.0.113.0/24\n\
         \n\
         ingress of scratch/job: allowed\n  no policy isolates it\n"
    );
    let answer = shop.json("shop/db", "scratch/job", &[]);
    assert_eq!(answer["unknown"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["to"].get("address"), None);
}

#[test]
fn an_invalid_policy_denies_and_is_named() {
    let broken = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: broken, namespace: scratch}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0/8}}]}]}
";
    let shop = Manifests::new(&[("shop.yaml", SHOP), ("broken.yaml", broken)]);
    let output = shop.explain("shop/web", "scratch/free", &["--port", "80"]);
    assert_eq!(code(&output), 1);
    let complaint = "broken.yaml: NetworkPolicy scratch/broken: spec.ingress[0].from[0].ipBlock.cidr: \
                     \"10.0.0/8\" is not a CIDR; it matches nothing";
    assert!(text(&output.stderr).contains(complaint), "{output:?}");
    assert!(
        text(&output.stdout).contains("isolated by broken"),
        "{output:?}"
    );
}

#[test]
fn nothing_is_told_while_a_manifest_is_unreadable() {
    let shop = Manifests::new(&[("shop.yaml", SHOP), ("half.yaml", "kind: NetworkPol")]);
    let output = shop.explain("shop/web", "scratch/free", &[]);
    assert_eq!(code(&output), 3);
    assert!(text(&output.stderr).contains("half.yaml"), "{output:?}");
    let missing = palisade()
        .args([
            "explain",
            "--from",
            "a/b",
            "--to",
            "c/d",
            "--manifests",
            "/nonexistent",
        ])
        .output();
    assert_eq!(code(&missing.unwrap()), 3);
}

#[test]
fn an_agent_that_is_not_there_cannot_be_asked() {
    for arguments in [
        &["status"][..],
        &["explain", "--from", "a/b", "--to", "c/d"],
    ] {
        let output = palisade()
            .args(arguments)
            .args(["--socket", "/nonexistent/palisade.sock"])
            .output()
            .unwrap();
        assert_eq!(code(&output), 3);
        assert!(
            text(&output.stderr).contains("/nonexistent/palisade.sock"),
            "{output:?}"
        );
    }
}
