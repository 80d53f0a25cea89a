//! What is wrong with objects, and what is probably not meant: for `palisade lint`.
//!
//! Two things are put together: what the conversion could not read, and denies, and what
//! [`palisade_policy::lint`] finds.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{
    lint::{Problem, Severity, lint},
    model,
};
use serde::Serialize;

use crate::{
    api::proto::ObjectName,
    objects::Objects,
    source::{self, Effect, Issue, Key, Kind},
};

pub mod github;
pub mod sarif;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Each, by file and line, or by object.
    pub findings: Vec<Finding>,
}

/// Something that is wrong, or probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its code.
    pub code: &'static str,
    /// Its name.
    pub name: &'static str,
    /// `error`, `warning` or `info`.
    pub severity: &'static str,
    /// The file that has it, where objects come from files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line of the field, or of what there is around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The object that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectName>,
    /// The field, as `spec.ingress[0].from[1]`; empty where the whole is meant.
    pub field: String,
    /// What it is.
    pub message: String,
    #[serde(skip)]
    level: Severity,
}

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Its code.
    pub code: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
}

/// Every kind of finding, by code.
pub const RULES: &[Rule] = &[
    rule(
        "PL001",
        "unreadable",
        "something cannot be read, and denies",
    ),
    rule(
        "PL002",
        "except-outside-cidr",
        "an exception of an ipBlock lies outside of it: the block matches nothing",
    ),
    rule(
        "PL003",
        "end-port-before-port",
        "a range of ports ends before it begins: it matches nothing",
    ),
    rule(
        "PL004",
        "defined-twice",
        "an object is defined more than once: the last holds",
    ),
    rule(
        "PL005",
        "namespace-not-given",
        "a namespace has objects but no definition: its labels are not known",
    ),
    rule("PL101", "selects-nothing", "a policy selects no pod"),
    rule("PL102", "peer-matches-nothing", "a peer matches no pod"),
    rule(
        "PL103",
        "no-such-namespace",
        "a namespaceSelector matches no namespace",
    ),
    rule(
        "PL104",
        "unknown-port-name",
        "no pod at the destination has a port of that name",
    ),
    rule("PL105", "no-dns", "pods may send, but not ask for names"),
    rule(
        "PL106",
        "swallowed-rule",
        "another rule allows all of it already",
    ),
    rule(
        "PL107",
        "no-default-deny",
        "no policy isolates the ingress of all pods of a namespace",
    ),
    rule(
        "PL108",
        "no-default-deny-egress",
        "no policy isolates the egress of all pods of a namespace",
    ),
    rule(
        "PL109",
        "block-holds-pods",
        "an ipBlock holds addresses of pods",
    ),
    rule(
        "PL201",
        "service-selects-nothing",
        "a Service selects no pod",
    ),
    rule(
        "PL202",
        "unknown-target-port",
        "no pod behind a Service has a port of the name of its targetPort",
    ),
    rule(
        "PL203",
        "undeclared-target-port",
        "no container behind a Service declares its targetPort",
    ),
    rule(
        "PL204",
        "target-port-not-allowed",
        "no policy allows anybody to reach the targetPort of a Service",
    ),
];

const fn rule(code: &'static str, name: &'static str, about: &'static str) -> Rule {
    Rule { code, name, about }
}

impl Finding {
    /// How bad it is.
    #[must_use]
    pub const fn level(&self) -> Severity {
        self.level
    }

    /// Where it is, as far as that is known.
    #[must_use]
    pub fn subject(&self) -> String {
        let mut parts = Vec::new();
        if let Some(ObjectName {
            kind,
            namespace,
            name,
        }) = &self.object
        {
            parts.push(match namespace.is_empty() {
                true => format!("{kind} {name}"),
                false => format!("{kind} {namespace}/{name}"),
            });
        }
        if !self.field.is_empty() {
            parts.push(self.field.clone());
        }
        parts.join(" ")
    }

    /// In a line, without the place.
    #[must_use]
    pub fn text(&self) -> String {
        let subject = self.subject();
        match subject.is_empty() {
            true => self.message.clone(),
            false => format!("{subject}: {}", self.message),
        }
    }
}

impl Report {
    /// Judges the objects. Findings whose code or name is among `ignored` are left out.
    #[must_use]
    pub fn of(objects: &Objects, ignored: &BTreeSet<String>) -> Self {
        let index = objects.bare_index();
        let declared: BTreeMap<_, _> = index
            .pods()
            .map(|pod| {
                (
                    pod.name.clone(),
                    objects.container_ports(&pod.name).to_vec(),
                )
            })
            .collect();
        let mut findings: Vec<_> = objects.issues().iter().map(of_issue).collect();
        for found in lint(&index, &declared) {
            let (key, problem) = (key(found.object), found.problem);
            findings.push(of_problem(&key, found.field, &problem));
        }
        let doubtful = objects.doubtful_namespaces();
        findings.extend(doubtful.map(|name| not_given(name)));
        findings.retain(|it| !ignored.contains(it.code) && !ignored.contains(it.name));
        for finding in &mut findings {
            let place = finding
                .object
                .as_ref()
                .and_then(|it| objects.place(&key_of(it)?));
            if let Some(place) = place {
                finding.file.get_or_insert_with(|| place.file.to_string());
                finding.line = Some(place.line_of(&finding.field));
            }
        }
        findings.sort_by(|one, other| {
            let order = |it: &Finding| (it.file.clone(), it.line, it.subject(), it.code);
            order(one).cmp(&order(other))
        });
        Self { findings }
    }

    /// Whether something is at least that bad.
    #[must_use]
    pub fn has(&self, least: Severity) -> bool {
        self.findings.iter().any(|finding| finding.level >= least)
    }

    /// How many findings are that bad.
    #[must_use]
    pub fn count(&self, level: Severity) -> usize {
        let all = self.findings.iter();
        all.filter(|finding| finding.level == level).count()
    }
}

fn not_given(name: &str) -> Finding {
    Finding {
        code: "PL005",
        name: "namespace-not-given",
        severity: Severity::Info.name(),
        file: None,
        line: None,
        object: Some(ObjectName {
            kind: Kind::Namespace.name().to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
        }),
        field: String::new(),
        message: "is not among the objects: of its labels only its name is known".to_owned(),
        level: Severity::Info,
    }
}

fn of_issue(issue: &Issue) -> Finding {
    let (code, name, level) = match (&issue.problem, issue.effect) {
        (source::Problem::ExceptOutside(_), _) => ("PL002", "except-outside-cidr", Severity::Error),
        (source::Problem::EndBeforePort, _) => ("PL003", "end-port-before-port", Severity::Error),
        (_, Effect::LastWins) => ("PL004", "defined-twice", Severity::Warning),
        (_, Effect::Ignored) => ("PL001", "unreadable", Severity::Warning),
        _ => ("PL001", "unreadable", Severity::Error),
    };
    let effect = match issue.effect {
        Effect::FileKept | Effect::ObjectKept => "it is left out".to_owned(),
        effect => effect.to_string(),
    };
    Finding {
        code,
        name,
        severity: level.name(),
        file: issue.file.as_deref().map(ToOwned::to_owned),
        line: None,
        object: issue.object.as_ref().map(object_name),
        field: issue.field.clone(),
        message: format!("{}; {effect}", issue.problem),
        level,
    }
}

fn of_problem(key: &Key, field: String, problem: &Problem) -> Finding {
    Finding {
        code: problem.code(),
        name: problem.name(),
        severity: problem.severity().name(),
        file: None,
        line: None,
        object: Some(object_name(key)),
        field,
        message: problem.to_string(),
        level: problem.severity(),
    }
}

fn object_name(key: &Key) -> ObjectName {
    ObjectName {
        kind: key.kind.name().to_owned(),
        namespace: key.name.namespace.to_string(),
        name: key.name.name.to_string(),
    }
}

fn key_of(object: &ObjectName) -> Option<Key> {
    let ObjectName {
        kind,
        namespace,
        name,
    } = object;
    let kinds = [
        Kind::Namespace,
        Kind::Node,
        Kind::Pod,
        Kind::Policy,
        Kind::Service,
    ];
    let kind = kinds.into_iter().find(|it| it.name() == kind)?;
    Some(Key::new(
        kind,
        model::Name::new(namespace.as_str(), name.as_str()),
    ))
}

fn key(key: model::Key) -> Key {
    match key {
        model::Key::Namespace(name) => Key::new(Kind::Namespace, model::Name::new("", name)),
        model::Key::Pod(name) => Key::new(Kind::Pod, name),
        model::Key::Policy(name) => Key::new(Kind::Policy, name),
        model::Key::Service(name) => Key::new(Kind::Service, name),
    }
}

#[cfg(test)]
mod tests;
