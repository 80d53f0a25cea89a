//! Whether policies decide anything. Only what is known for certain is called unused.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::proto::{Hits, Policies, PolicyName, Span};

/// Whether a policy decided anything of late: it allowed a flow by one of its rules, or was among those that denied one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// `used`, `unused`, or `unknown`.
    pub state: String,
    /// Flows that were told of, since agents count.
    pub flows: u64,
    /// When the last was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// Why it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The time that is looked at, and what is not known of it.
pub(super) struct Window {
    since: Timestamp,
    /// Why nothing is known for certain of any policy.
    doubt: Option<String>,
    hits: BTreeMap<PolicyName, Hits>,
}

/// How much of the time agents may have been away, one part in so many.
const AWAY: i64 = 100;

impl Window {
    pub(super) fn new(told: Option<&Policies>, length: SignedDuration, at: Timestamp) -> Self {
        let since = at.checked_sub(length).unwrap_or(Timestamp::MIN);
        let Some(told) = told else {
            return Self {
                since,
                doubt: Some("no agent was asked".to_owned()),
                hits: BTreeMap::new(),
            };
        };
        let silent = told.unavailable.keys().next();
        let silent = silent.map(|node| format!("node {node} does not answer"));
        let doubt = silent.or_else(|| told.spans.iter().find_map(|span| doubt(span, since, at)));
        let hits = told.policies.iter().map(|policy| {
            let mut all = policy.denied.clone();
            all.add(&policy.audited);
            for allowed in policy.rules.iter().filter_map(|rule| rule.allowed.as_ref()) {
                all.add(allowed);
            }
            (policy.name.clone(), all)
        });
        Self {
            since,
            doubt,
            hits: hits.collect(),
        }
    }

    pub(super) fn usage(&self, policy: &PolicyName, created: Option<Timestamp>) -> Use {
        let Hits { flows, last } = self.hits.get(policy).cloned().unwrap_or_default();
        let why = if last.is_some_and(|last| last >= self.since) {
            None
        } else {
            let young = created.is_some_and(|created| created > self.since);
            let young = young.then(|| "it is younger than that".to_owned());
            self.doubt.clone().or(young)
        };
        let state = match (&why, last) {
            (Some(_), _) => "unknown",
            (None, Some(last)) if last >= self.since => "used",
            (None, _) => "unused",
        };
        Use {
            state: state.to_owned(),
            flows,
            last,
            why,
        }
    }
}

/// What an agent does not know of the time since then.
fn doubt(span: &Span, since: Timestamp, until: Timestamp) -> Option<String> {
    let node = &span.node;
    let away = i64::try_from(span.away_seconds).unwrap_or(i64::MAX);
    let length = until.duration_since(since).as_secs();
    match span.allowed_since {
        None => Some(format!(
            "{node} is not told of allowed flows (--allowed-flows off)"
        )),
        Some(told) if told > since => Some(format!("{node} counts since {told} only")),
        _ if away > length / AWAY => Some(format!("on {node} no agent was there for {away} s")),
        _ if span.lost + span.unattributed > 0 => Some(format!(
            "on {node} {} flows are not known",
            span.lost + span.unattributed
        )),
        _ => None,
    }
}
