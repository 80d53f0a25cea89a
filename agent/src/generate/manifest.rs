//! Policies as manifests: plain, for kustomize, or as a template for helm.

use anyhow::Result;
use palisade_policy::{
    generate::Generated,
    model::{
        Mode, Operator, Peer, Peers, Policy, Port, PortNumber, Ports, Requirement, Rule, Selector,
    },
};
use serde_json::{Map, Value, json};

use crate::source::convert::{REASON, mode::MODE};

/// A file and its text.
pub type File = (String, String);

/// A policy as the API has it.
#[must_use]
pub fn manifest(generated: &Generated) -> Value {
    let Generated { policy, reasons } = generated;
    let Policy { name, mode, .. } = policy;
    let mut annotations = json!({ REASON: reasons.join("\n") });
    if *mode == Mode::Audit {
        annotations[MODE] = json!("audit");
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": name.name,
            "namespace": name.namespace,
            "annotations": annotations,
        },
        "spec": spec(policy),
    })
}

/// What a policy says, as the API has it.
#[must_use]
pub fn spec(policy: &Policy) -> Value {
    let mut spec = Map::new();
    let mut types = Vec::new();
    spec.insert("podSelector".to_owned(), label_selector(&policy.selector));
    for (direction, ends, title, rules) in [
        ("ingress", "from", "Ingress", &policy.ingress),
        ("egress", "to", "Egress", &policy.egress),
    ] {
        let Some(rules) = rules else { continue };
        types.push(title);
        if !rules.is_empty() {
            let rules = rules.iter().map(|it| rule(it, ends)).collect();
            spec.insert(direction.to_owned(), rules);
        }
    }
    spec.insert("policyTypes".to_owned(), json!(types));
    spec.into()
}

fn rule(rule: &Rule, ends: &str) -> Value {
    let mut fields = Map::new();
    if let Peers::Of(peers) = &rule.peers {
        fields.insert(ends.to_owned(), peers.iter().map(peer).collect());
    }
    if let Ports::Of(ports) = &rule.ports {
        fields.insert("ports".to_owned(), ports.iter().map(port).collect());
    }
    fields.into()
}

fn peer(peer: &Peer) -> Value {
    match peer {
        Peer::Block(block) if block.except.is_empty() => {
            json!({"ipBlock": {"cidr": block.cidr.to_string()}})
        }
        Peer::Block(block) => {
            let except: Vec<_> = block.except.iter().map(ToString::to_string).collect();
            json!({"ipBlock": {"cidr": block.cidr.to_string(), "except": except}})
        }
        Peer::Pods {
            namespaces: None,
            pods,
        } => json!({"podSelector": label_selector(pods)}),
        Peer::Pods {
            namespaces: Some(namespaces),
            pods,
        } => json!({
            "namespaceSelector": label_selector(namespaces),
            "podSelector": label_selector(pods),
        }),
    }
}

fn port(port: &Port) -> Value {
    let protocol = port.protocol.to_string();
    match &port.number {
        PortNumber::All => json!({"protocol": protocol}),
        PortNumber::Named(name) => json!({"protocol": protocol, "port": name}),
        PortNumber::Range(first, last) if first == last => {
            json!({"protocol": protocol, "port": first})
        }
        PortNumber::Range(first, last) => {
            json!({"protocol": protocol, "port": first, "endPort": last})
        }
    }
}

fn label_selector(selector: &Selector) -> Value {
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for Requirement { key, operator } in selector.requirements() {
        let expression = |operator: &str| json!({"key": key, "operator": operator});
        match operator {
            Operator::In(values) if values.len() == 1 && !labels.contains_key(&**key) => {
                labels.insert(key.to_string(), json!(values[0]));
            }
            Operator::In(values) => {
                expressions.push(json!({"key": key, "operator": "In", "values": values}));
            }
            Operator::NotIn(values) => {
                expressions.push(json!({"key": key, "operator": "NotIn", "values": values}));
            }
            Operator::Exists => expressions.push(expression("Exists")),
            Operator::DoesNotExist => expressions.push(expression("DoesNotExist")),
        }
    }
    let mut fields = Map::new();
    if !labels.is_empty() {
        fields.insert("matchLabels".to_owned(), labels.into());
    }
    if !expressions.is_empty() {
        fields.insert("matchExpressions".to_owned(), expressions.into());
    }
    fields.into()
}

/// All policies in one text, in their order.
///
/// # Errors
///
/// What a manifest holds has no form in YAML.
pub fn yaml(all: &[Generated]) -> Result<String> {
    let mut text = String::new();
    for generated in all {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text += &document(generated)?;
    }
    Ok(text)
}

/// A file for each policy, numbered in their order, and a `kustomization.yaml` that names them.
///
/// # Errors
///
/// As of [`yaml`].
pub fn kustomize(all: &[Generated]) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for (at, generated) in all.iter().enumerate() {
        let name = &generated.policy.name;
        let file = format!("{at:03}-{}-{}.yaml", name.namespace, name.name);
        files.push((file, document(generated)?));
    }
    let resources: Vec<_> = files.iter().map(|(file, _)| file.clone()).collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        // Else it sorts by kind and name, and the default deny would come before what is to pass.
        "sortOptions": {"order": "fifo"},
        "resources": resources,
    });
    let kustomization = serde_saphyr::to_string(&kustomization)?;
    files.push(("kustomization.yaml".to_owned(), kustomization));
    Ok(files)
}

/// A template for a chart, switched by `networkPolicies.enabled`. Policies of one namespace alone go where the release
/// goes.
///
/// # Errors
///
/// As of [`yaml`].
pub fn helm(all: &[Generated]) -> Result<String> {
    let mut namespaces = all.iter().map(|it| &it.policy.name.namespace);
    let first = namespaces.next();
    let single = namespaces.all(|it| Some(it) == first);
    let mut text =
        String::from("{{- if ne (toString (.Values.networkPolicies).enabled) \"false\" }}\n");
    for (at, generated) in all.iter().enumerate() {
        if at > 0 {
            text.push_str("---\n");
        }
        let mut manifest = manifest(generated);
        if single {
            manifest["metadata"]["namespace"] = "{{ .Release.Namespace }}".into();
        }
        text += &serde_saphyr::to_string(&manifest)?;
    }
    text.push_str("{{- end }}\n");
    Ok(text)
}

fn document(generated: &Generated) -> Result<String> {
    Ok(serde_saphyr::to_string(&manifest(generated))?)
}
