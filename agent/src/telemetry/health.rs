//! Whether the agent's loops turn, and whether it does its work.
//!
//! Liveness is the loops' alone: an unreachable source or a full map is no reason to restart, for the
//! successor would meet the same. Readiness is the agent's conditions, as `status` shows them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::api::proto::Condition;

/// The loops' heartbeats.
#[derive(Clone, Default)]
pub struct Health {
    pulses: Arc<Mutex<BTreeMap<&'static str, (Instant, Duration)>>>,
}

/// One loop's heartbeat. A loop that ends drops it, and is missed no more.
pub struct Pulse {
    health: Health,
    name: &'static str,
}

impl Health {
    /// Expects a beat of the loop at least that often.
    #[must_use]
    pub fn pulse(&self, name: &'static str, every: Duration) -> Pulse {
        self.with(|pulses| pulses.insert(name, (Instant::now(), every)));
        Pulse {
            health: self.clone(),
            name,
        }
    }

    /// The loops, and of each whether it turns.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let now = Instant::now();
        self.with(|pulses| {
            let loops = pulses.iter().map(|(&name, &(last, every))| {
                let age = now.saturating_duration_since(last);
                Condition {
                    name: name.to_owned(),
                    ok: age <= every,
                    reason: (age > every).then(|| format!("last beat {} s ago", age.as_secs())),
                }
            });
            loops.collect()
        })
    }

    fn with<T>(
        &self,
        act: impl FnOnce(&mut BTreeMap<&'static str, (Instant, Duration)>) -> T,
    ) -> T {
        act(&mut self.pulses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pulse {
    /// The loop turns.
    pub fn beat(&self) {
        self.health.with(|pulses| {
            if let Some((last, _)) = pulses.get_mut(self.name) {
                *last = Instant::now();
            }
        });
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.health.with(|pulses| pulses.remove(self.name));
    }
}

/// Whether all hold, and the lines that say so, as those of the API server's own health checks.
#[must_use]
pub fn report(check: &str, conditions: &[Condition], verbose: bool) -> (bool, String) {
    let ok = conditions.iter().all(|condition| condition.ok);
    if ok && !verbose {
        return (ok, "ok".to_owned());
    }
    let mut text = String::new();
    for Condition { name, ok, reason } in conditions {
        let line = match reason {
            _ if *ok => writeln!(text, "[+]{name} ok"),
            Some(reason) => writeln!(text, "[-]{name} failed: {reason}"),
            None => writeln!(text, "[-]{name} failed"),
        };
        line.expect("a String takes every text");
    }
    text.push_str(&format!(
        "{check} check {}\n",
        if ok { "passed" } else { "failed" }
    ));
    (ok, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stops_is_named_and_one_that_ended_is_not() {
        let health = Health::default();
        let stopped = health.pulse("stopped", Duration::ZERO);
        let turning = health.pulse("turning", Duration::from_secs(60));
        drop(health.pulse("ended", Duration::ZERO));
        std::thread::sleep(Duration::from_millis(2));
        turning.beat();
        let (ok, text) = report("livez", &health.conditions(), false);
        assert!(!ok);
        assert_eq!(
            text,
            "[-]stopped failed: last beat 0 s ago\n[+]turning ok\nlivez check failed\n"
        );
        drop(stopped);
        assert_eq!(
            report("livez", &health.conditions(), false),
            (true, "ok".to_owned())
        );
        assert_eq!(
            report("livez", &health.conditions(), true),
            (true, "[+]turning ok\nlivez check passed\n".to_owned())
        );
    }
}
