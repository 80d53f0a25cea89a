//! Expectations as they are written.

use std::fmt;

use palisade_policy::model::{Operator, Requirement, Selector};
use std::sync::Arc;

use super::Asked;
use crate::explain::End;

/// A line of a file of expectations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its line, from 1 on.
    pub line: usize,
    /// As it is written, without a comment.
    pub text: String,
    /// Who sends.
    pub from: Parties,
    /// To whom.
    pub to: Parties,
    /// At which destination port; without one, everything is meant.
    pub port: Asked,
    /// What is expected.
    pub verdict: Verdict,
}

/// What is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it passes.
    Allow,
    /// Nothing of it passes.
    Deny,
}

/// Whom a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parties {
    /// A pod or workload (`NAMESPACE/NAME`), an address, a Service.
    End(End),
    /// Pods of a namespace: `NAMESPACE/*`, or `NAMESPACE/key=value,key=value`.
    Pods {
        /// The namespace.
        namespace: Arc<str>,
        /// Their labels.
        selector: Selector,
    },
    /// `outside`: an address that is nobody's and that no block names.
    Outside,
}

impl fmt::Display for Parties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End(end) => end.fmt(f),
            Self::Outside => f.write_str("outside"),
            Self::Pods {
                namespace,
                selector,
            } => {
                let labels = selector.requirements().iter().map(ToString::to_string);
                let labels: Vec<_> = labels.collect();
                match labels.is_empty() {
                    true => write!(f, "{namespace}/*"),
                    false => write!(f, "{namespace}/{}", labels.join(",")),
                }
            }
        }
    }
}

/// Reads a file of expectations: one on a line, empty lines and what follows a `#` passed over.
///
/// # Errors
///
/// A line is none; the text names it.
pub fn parse(text: &str) -> Result<Vec<Expectation>, String> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let read = expectation(line).map_err(|error| format!("line {}: {error}", at + 1))?;
        all.push(Expectation {
            line: at + 1,
            ..read
        });
    }
    Ok(all)
}

fn expectation(line: &str) -> Result<Expectation, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [from, "->", to, verdict] = words[..] else {
        return Err("expected FROM -> TO[:PORT[/PROTOCOL]] allow|deny".to_owned());
    };
    let verdict = match verdict {
        "allow" => Verdict::Allow,
        "deny" => Verdict::Deny,
        other => return Err(format!("expected allow or deny, not {other}")),
    };
    let (to, port) = target(to)?;
    let from = parties(from)?;
    if matches!(from, Parties::End(End::Service(_))) {
        return Err("a Service sends nothing".to_owned());
    }
    Ok(Expectation {
        line: 0,
        text: words.join(" "),
        from,
        to: parties(to)?,
        port,
        verdict,
    })
}

/// Parts a port from whom it is of; an IPv6 address with a port stands in brackets.
fn target(text: &str) -> Result<(&str, Asked), String> {
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match rest.strip_prefix(':') {
            Some(port) => Ok((address, Some(port_of(port)?))),
            None if rest.is_empty() => Ok((address, None)),
            None => Err(format!("expected :PORT after {address}")),
        };
    }
    match text.split_once(':') {
        // More than one colon is an address.
        Some((end, port)) if !port.contains(':') => Ok((end, Some(port_of(port)?))),
        _ => Ok((text, None)),
    }
}

fn port_of(text: &str) -> Result<crate::explain::Port, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

/// Whom a text means.
pub(crate) fn parties(text: &str) -> Result<Parties, String> {
    if text == "outside" {
        return Ok(Parties::Outside);
    }
    if let Some((namespace, labels)) = text.split_once('/')
        && !namespace.is_empty()
        && (labels == "*" || labels.contains('='))
    {
        let mut requirements = Vec::new();
        for label in labels.split(',').filter(|_| labels != "*") {
            let Some((key, value)) = label.split_once('=').filter(|(key, _)| !key.is_empty())
            else {
                return Err(format!("{text}: expected labels as key=value,key=value"));
            };
            requirements.push(Requirement {
                key: key.into(),
                operator: Operator::In(vec![value.into()]),
            });
        }
        return Ok(Parties::Pods {
            namespace: namespace.into(),
            selector: Selector::new(requirements),
        });
    }
    let end = text.parse().map_err(|error| format!("{text}: {error}"))?;
    Ok(Parties::End(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_whom_where_and_what() {
        let text = "
# The shop.
shop/frontend -> shop/api:8080 allow
shop/* -> kube-system/k8s-app=kube-dns,a=b:53/UDP   allow # names
outside -> shop/db deny
10.0.0.1 -> [fd00::1]:443 deny
fd00::1 -> fd00::2 deny
shop/web -> service/shop/api:80 allow
";
        let read = parse(text).expect("expectations");
        let each: Vec<_> = read
            .iter()
            .map(|it| {
                let port = it.port.map_or_else(String::new, |port| port.to_string());
                format!("{} {} {} {port} {:?}", it.line, it.from, it.to, it.verdict)
            })
            .collect();
        assert_eq!(
            each,
            [
                "3 shop/frontend shop/api 8080/TCP Allow",
                "4 shop/* kube-system/a=b,k8s-app=kube-dns 53/UDP Allow",
                "5 outside shop/db  Deny",
                "6 10.0.0.1 fd00::1 443/TCP Deny",
                "7 fd00::1 fd00::2  Deny",
                "8 shop/web service/shop/api 80/TCP Allow",
            ]
        );
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for (line, expected) in [
            ("a/b -> c/d", "line 2: expected FROM"),
            ("a/b => c/d allow", "line 2: expected FROM"),
            ("a/b -> c/d maybe", "line 2: expected allow or deny"),
            ("a -> c/d allow", "line 2: a: expected"),
            ("a/b -> c/d:http allow", "line 2: http: expected PORT"),
            ("a/b -> [fd00::1]80 allow", "line 2: expected :PORT"),
            (
                "service/a/b -> c/d allow",
                "line 2: a Service sends nothing",
            ),
            ("a/=x -> c/d allow", "line 2: a/=x: expected labels"),
        ] {
            let error = parse(&format!("\n{line}\n")).expect_err(line);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
