//! Expectations held against real connections, opened from the pods that they speak of.
//!
//! A name may mean thousands of pairs of pods: some of them are tried, and how many is said.

use palisade_policy::model::Name;

use super::{Court, Expectation, Judged, Outcome, Parties, Report, Verdict};
use crate::{
    explain::End,
    objects::Objects,
    probe::{Attempt, Goal, Prober, Target},
};

/// How many pods are tried of those that one end of an expectation means.
const PODS: usize = 3;

/// Holds expectations against what becomes of real connections.
pub async fn probe(objects: &Objects, expectations: &[Expectation], prober: &mut Prober) -> Report {
    let court = Court::of(objects);
    let mut judged = Vec::new();
    for expectation in expectations {
        let (outcome, reason) = match pairs(&court, expectation) {
            Ok(pairs) => try_all(pairs, expectation, prober).await,
            Err(reason) => (Outcome::Unknown, Some(reason)),
        };
        judged.push(Judged {
            line: expectation.line,
            expectation: expectation.text.clone(),
            outcome,
            reason,
        });
    }
    Report::of(judged)
}

/// Some pairs of ends, and how many there are in all.
struct Pairs {
    some: Vec<(Name, Goal)>,
    all: usize,
}

/// Whom an expectation means.
///
/// # Errors
///
/// No connection can be opened for it; why.
fn pairs(court: &Court<'_>, expectation: &Expectation) -> Result<Pairs, String> {
    let Expectation { from, to, port, .. } = expectation;
    if *to == Parties::Outside {
        return Err("a connection needs an address in place of `outside`".to_owned());
    }
    let from: Vec<Name> = court
        .ends(from)?
        .into_iter()
        .map(|end| match end {
            End::Pod(name) => Ok(name),
            other => Err(format!(
                "{other} is no pod: connections are opened from pods"
            )),
        })
        .collect::<Result<_, _>>()?;
    let to = court.ends(to)?;
    let service = |end: &End| matches!(end, End::Service(_));
    if port.is_none() && !to.iter().all(service) {
        return Err("a connection needs a port".to_owned());
    }
    let single = from.len() == 1 && to.len() == 1;
    let other = |from: &Name, to: &End| single || End::Pod(from.clone()) != *to;
    let count = |pods: &[Name]| {
        let each = pods
            .iter()
            .map(|from| to.iter().filter(|to| other(from, to)).count());
        each.sum()
    };
    let all = count(&from);
    let goal = |to: &End| Goal {
        target: Target::End(to.clone()),
        port: *port,
    };
    let some = from.iter().take(PODS).flat_map(|from| {
        let to = to.iter().filter(move |to| other(from, to)).take(PODS);
        to.map(move |to| (from.clone(), goal(to)))
    });
    Ok(Pairs {
        some: some.collect(),
        all,
    })
}

/// The worst of all that are tried, with its reason.
async fn try_all(
    Pairs { some, all }: Pairs,
    expectation: &Expectation,
    prober: &mut Prober,
) -> (Outcome, Option<String>) {
    let tried = some.len();
    let mut worst = (Outcome::Holds, None);
    for (from, goal) in some {
        let outcome = match prober.probe(&from, &goal).await {
            Ok(report) => {
                let each = report.attempts.iter();
                let each = each.map(|attempt| hold(&from, attempt, expectation.verdict));
                each.max_by_key(|(outcome, _)| *outcome)
                    .unwrap_or((Outcome::Unknown, None))
            }
            Err(error) => (Outcome::Unknown, Some(format!("{error:#}"))),
        };
        if outcome.0 > worst.0 {
            worst = outcome;
        }
        if worst.0 == Outcome::Fails {
            break;
        }
    }
    if worst.0 == Outcome::Holds && tried < all {
        worst.1 = Some(format!("{tried} of {all} pairs were tried"));
    }
    worst
}

/// Whether a connection came out as expected, and why not.
fn hold(from: &Name, attempt: &Attempt, expected: Verdict) -> (Outcome, Option<String>) {
    let Attempt {
        target,
        protocol,
        outcome,
        passes,
        verdicts,
        ..
    } = attempt;
    let denied = verdicts.iter().find(|it| it.flow.verdict == "denied");
    let by = denied.map_or_else(String::new, |it| {
        let policies = it.flow.policies.join(", ");
        format!("; denied at {} by {policies}", it.flow.direction)
    });
    let said = format!("{from} -> {target}/{protocol}: {outcome}{by}");
    match (passes, expected) {
        (Some(true), Verdict::Allow) | (Some(false), Verdict::Deny) => (Outcome::Holds, None),
        (Some(_), _) => (Outcome::Fails, Some(said)),
        (None, _) => (Outcome::Unknown, Some(said)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        connectivity::wire::{Outcome as Came, Protocol},
        expect::parse,
    };

    const OBJECTS: &str = include_str!("../../../deploy/examples/pods.yaml");

    fn objects() -> Objects {
        let folder = std::env::temp_dir().join(format!("palisade-probed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("pods.yaml");
        std::fs::write(&file, OBJECTS).expect("a file");
        let objects = Objects::from_files(&[file], false).expect("objects");
        std::fs::remove_dir_all(folder).expect("a folder");
        objects
    }

    fn expectation(text: &str) -> Expectation {
        let mut all = parse(text).expect(text);
        all.remove(0)
    }

    #[test]
    fn what_no_connection_can_be_opened_for_is_not_told() {
        let objects = objects();
        let court = Court::of(&objects);
        let pods: Vec<_> = court
            .index
            .pods()
            .map(|pod| pod.name.clone())
            .take(2)
            .collect();
        let [from, to] = pods.as_slice() else {
            panic!("{pods:?}");
        };
        let refused = |text: String| pairs(&court, &expectation(&text)).err().unwrap_or_default();
        assert!(refused(format!("{from} -> outside:80 allow")).contains("outside"));
        assert!(refused(format!("{from} -> {to} allow")).contains("a port"));
        assert!(refused(format!("10.0.0.1 -> {to}:80 allow")).contains("no pod"));
        let one = pairs(&court, &expectation(&format!("{from} -> {to}:80 allow")));
        assert_eq!(one.map(|pairs| (pairs.some.len(), pairs.all)), Ok((1, 1)));
    }

    #[test]
    fn of_many_pairs_some_are_tried() {
        let objects = objects();
        let court = Court::of(&objects);
        let namespace = court
            .index
            .pods()
            .next()
            .expect("a pod")
            .name
            .namespace
            .clone();
        let count = court.index.pods_of(&namespace).count();
        let text = format!("{namespace}/* -> {namespace}/*:80 allow");
        let pairs = pairs(&court, &expectation(&text)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(pairs.all, count * (count - 1));
        assert!(pairs.some.len() <= PODS * PODS);
    }

    #[test]
    fn a_connection_holds_what_was_expected_or_not() {
        let attempt = |outcome, passes| Attempt {
            target: SocketAddr::from(([10, 0, 0, 1], 80)),
            protocol: Protocol::Tcp,
            outcome,
            took_ms: 1,
            source_port: 1,
            passes,
            verdicts: Vec::new(),
        };
        let from = Name::new("a", "b");
        let of = |attempt, expected| hold(&from, &attempt, expected).0;
        let answered = || attempt(Came::Answered, Some(true));
        assert_eq!(of(answered(), Verdict::Allow), Outcome::Holds);
        assert_eq!(of(answered(), Verdict::Deny), Outcome::Fails);
        let denied = || attempt(Came::Silent, Some(false));
        assert_eq!(of(denied(), Verdict::Deny), Outcome::Holds);
        assert_eq!(of(denied(), Verdict::Allow), Outcome::Fails);
        let silent = attempt(Came::Silent, None);
        assert_eq!(of(silent, Verdict::Deny), Outcome::Unknown);
    }
}
