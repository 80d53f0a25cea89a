//! What is expected of an attempt, and whether it came true.

use std::{fmt, net::SocketAddr};

use crate::connectivity::{probe::Probe, wire::Answer};

/// What is expected of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Allowed,
    Denied,
    /// On a connection that is held.
    Kept,
    Cut,
}

impl Wanted {
    pub(super) fn answered(self) -> bool {
        matches!(self, Self::Allowed | Self::Kept)
    }
}

/// An attempt to an address, and what is expected of it.
pub(super) struct Check<'a> {
    pub(super) probe: &'a Probe,
    pub(super) target: SocketAddr,
    pub(super) wanted: Wanted,
    /// The number of a connection that is held.
    pub(super) connection: Option<u64>,
}

/// What did not come true.
#[derive(Debug)]
pub(super) struct Mismatch {
    text: String,
    /// Whether it was answered though policy denies it.
    pub(super) let_through: bool,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Check<'_> {
    /// What is not as expected of these answers.
    pub(super) fn judge(&self, answers: &[Answer]) -> Option<Mismatch> {
        let answered: Vec<_> = answers
            .iter()
            .filter(|answer| answer.is_answered())
            .collect();
        let mismatch = |what: String, let_through| {
            let Self { probe, target, .. } = self;
            Some(Mismatch {
                text: format!("{probe} ({target}): {what}"),
                let_through,
            })
        };
        let who = |answer: &Answer| match &answer.greeting {
            Some(greeting) => format!(
                "answered by {} after {} ms",
                greeting.server, answer.took_ms
            ),
            None => format!("connected after {} ms", answer.took_ms),
        };
        let other = answered.iter().find(|answer| {
            let server = answer
                .greeting
                .as_ref()
                .map(|greeting| greeting.server.as_str());
            self.probe.by.is_some_and(|by| server != Some(by.name))
        });
        match (self.wanted, answered.first(), other) {
            (Wanted::Allowed, _, Some(other)) => {
                mismatch(format!("is denied, but {}", who(other)), true)
            }
            (Wanted::Allowed | Wanted::Kept, None, _) => {
                let outcome = answers.first().map(|answer| answer.outcome.to_string());
                let word = match self.wanted {
                    Wanted::Kept => "its connection is kept",
                    _ => "is allowed",
                };
                mismatch(
                    format!("{word}, but {}", outcome.unwrap_or_default()),
                    false,
                )
            }
            (Wanted::Denied, Some(answer), _) => {
                mismatch(format!("is denied, but {}", who(answer)), true)
            }
            (Wanted::Cut, Some(answer), _) => {
                mismatch(format!("its connection is cut, but {}", who(answer)), true)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::wire::{Greeting, Outcome};

    fn answer(by: Option<&str>) -> Answer {
        Answer {
            local: None,
            addresses: Vec::new(),
            id: 1,
            outcome: match by {
                Some(_) => Outcome::Answered,
                None => Outcome::Silent,
            },
            greeting: by.map(|server| Greeting {
                server: server.to_owned(),
                client: SocketAddr::from(([10, 0, 0, 1], 40000)),
            }),
            took_ms: 3,
        }
    }

    /// What is wrong, and whether it is that something was let through.
    fn judge(text: &str, wanted: Wanted, answers: &[Option<&str>]) -> Option<(String, bool)> {
        let probe = Probe::try_from(text.to_owned()).expect("a probe");
        let check = Check {
            probe: &probe,
            target: SocketAddr::from(([10, 0, 0, 2], 8080)),
            wanted,
            connection: None,
        };
        let answers: Vec<_> = answers.iter().map(|by| answer(*by)).collect();
        let mismatch = check.judge(&answers)?;
        Some((mismatch.to_string(), mismatch.let_through))
    }

    #[test]
    fn what_is_allowed_is_answered_and_what_is_denied_is_not() {
        const TEXT: &str = "x/a -> x/b:8080";
        let (answered, silent) = (&[Some("x/b")], &[None]);
        for (wanted, right, wrong) in [
            (Wanted::Allowed, answered, silent),
            (Wanted::Kept, answered, silent),
            (Wanted::Denied, silent, answered),
            (Wanted::Cut, silent, answered),
        ] {
            assert_eq!(judge(TEXT, wanted, right), None, "{wanted:?}");
            let (text, let_through) = judge(TEXT, wanted, wrong).expect("a mismatch");
            assert_eq!(let_through, !wanted.answered(), "{text}");
            assert!(
                text.starts_with("x/a -> x/b:8080 (10.0.0.2:8080): "),
                "{text}"
            );
        }
        let (text, _) = judge(TEXT, Wanted::Denied, answered).expect("a mismatch");
        assert!(
            text.ends_with("is denied, but answered by x/b after 3 ms"),
            "{text}"
        );
    }

    #[test]
    fn of_several_backends_the_allowed_one_alone_answers() {
        const TEXT: &str = "x/a -> service all:80 by x/b";
        let judge = |answers: &[Option<&str>]| judge(TEXT, Wanted::Allowed, answers);
        assert_eq!(judge(&[Some("x/b"), None, Some("x/b")]), None);
        let other = judge(&[Some("x/b"), Some("x/c")]).expect("a mismatch");
        assert!(other.1 && other.0.contains("answered by x/c"), "{other:?}");
        let none = judge(&[None, None]).expect("a mismatch");
        assert!(!none.1, "{none:?}");
    }
}
