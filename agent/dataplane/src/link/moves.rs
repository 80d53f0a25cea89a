//! How often programs of ours were moved to the front of a hook: another may insist on being first, and two that do would
//! move for ever.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::netlink::Hook;

/// How often on one hook, within [`WHILE`].
const MOST: usize = 3;
/// See [`MOST`].
const WHILE: Duration = Duration::from_secs(10 * 60);

/// When each hook was last moved on.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<(u32, Hook), Vec<Instant>>);

impl Moves {
    /// Whether a hook may be moved on.
    pub(super) fn may_move(&self, place: (u32, Hook), now: Instant) -> bool {
        let moved = self.0.get(&place).into_iter().flatten();
        moved.filter(|at| is_recent(**at, now)).count() < MOST
    }

    /// A hook is moved on; `true` if it may not be again for a while.
    pub(super) fn note(&mut self, place: (u32, Hook), now: Instant) -> bool {
        self.0.retain(|_, moved| {
            moved.retain(|at| is_recent(*at, now));
            !moved.is_empty()
        });
        self.0.entry(place).or_default().push(now);
        !self.may_move(place, now)
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < WHILE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_moved_on_three_times_in_ten_minutes() {
        let mut moves = Moves::default();
        let (one, other) = ((1, Hook::Ingress), (1, Hook::Egress));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(!moves.note(one, at(0)));
        assert!(!moves.note(one, at(60)));
        assert!(moves.may_move(one, at(120)));
        assert!(moves.note(one, at(120)), "the third is the last");
        assert!(!moves.may_move(one, at(599)));
        assert!(
            moves.may_move(other, at(599)),
            "another hook has its own count"
        );
        assert!(moves.may_move(one, at(600)), "the first is ten minutes old");
        assert!(moves.note(one, at(600)));
        assert!(!moves.may_move(one, at(659)));
        assert!(moves.may_move(one, at(660)));
        assert!(!moves.note(other, at(10_000)));
        assert_eq!(moves.0.len(), 1, "what is long past is forgotten");
    }
}
