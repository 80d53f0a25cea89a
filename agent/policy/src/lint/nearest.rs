//! The label that would have matched.

use std::fmt::Display;

use crate::model::{Labels, Operator, Requirement, Selector};

use super::problem::Nearest;

/// Of those that a selector does not match the one that comes nearest: of few requirements that fail, by few letters.
pub(super) fn label<'a, W: Display>(
    selector: &Selector,
    candidates: impl Iterator<Item = (&'a Labels, W)>,
) -> Option<Nearest> {
    let mut best: Option<((usize, usize), Nearest)> = None;
    for (labels, who) in candidates {
        let failed: Vec<_> = selector
            .requirements()
            .iter()
            .filter(|one| !Selector::new(vec![(*one).clone()]).matches(labels))
            .collect();
        if best
            .as_ref()
            .is_some_and(|((fewest, _), _)| failed.len() > *fewest)
        {
            continue;
        }
        let near = failed.iter().filter_map(|one| near(one, labels)).min();
        let some_hold = failed.len() < selector.requirements().len();
        let (distance, wanted, found) = match (near, &failed[..]) {
            (Some((distance, wanted, found)), _) => (distance, wanted, Some(found)),
            (None, [only]) if some_hold => (usize::MAX, only.to_string(), None),
            _ => continue,
        };
        let cost = (failed.len(), distance);
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            let bearer = who.to_string();
            best = Some((
                cost,
                Nearest {
                    wanted,
                    found,
                    bearer,
                },
            ));
        }
    }
    best.map(|(_, nearest)| nearest)
}

/// The label that comes nearest to a requirement: how far it is, what was wanted, what there is.
fn near(requirement: &Requirement, labels: &Labels) -> Option<(usize, String, String)> {
    let Operator::In(values) = &requirement.operator else {
        return None;
    };
    let wanted = values
        .iter()
        .map(|value| format!("{}={value}", requirement.key));
    let pairs = wanted.flat_map(|wanted| {
        labels.iter().filter_map(move |(key, value)| {
            let found = format!("{key}={value}");
            let distance = strsim::levenshtein(&wanted, &found);
            // Under the same key any value may have been meant, under another only one that is much alike.
            let alike = *key == requirement.key || distance * 3 <= wanted.len();
            alike.then(|| (distance, wanted.clone(), found))
        })
    });
    pairs.min()
}

/// Of names the one that comes nearest, within half of its letters.
pub(super) fn name<'a, W: Display>(
    wanted: &str,
    candidates: impl Iterator<Item = (&'a str, W)>,
) -> Option<Nearest> {
    let near = candidates.filter_map(|(found, who)| {
        let distance = strsim::levenshtein(wanted, found);
        (distance * 2 <= wanted.len().max(found.len())).then_some((distance, found, who))
    });
    let (_, found, who) = near.min_by_key(|(distance, found, _)| (*distance, *found))?;
    Some(Nearest {
        wanted: wanted.to_owned(),
        found: Some(found.to_owned()),
        bearer: who.to_string(),
    })
}
