//! What the programs count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use palisade_common::{
    value::Counters,
    verdict::{Direction, Reason},
};
use palisade_dataplane::maps::Maps;

use super::metrics::{self, Verdict};

/// The counters of all slots together, which only grow although those of a slot begin anew with each pod.
#[derive(Default)]
pub struct Traffic(Mutex<Sums>);

#[derive(Default)]
struct Sums {
    maps: Option<Arc<Maps>>,
    last: HashMap<(u16, u8), Counters>,
    total: [Counters; 2],
}

impl Traffic {
    /// Says where they are.
    pub fn open(&self, maps: Arc<Maps>) {
        self.with(|sums| sums.maps = Some(maps));
    }

    /// Reads the counters of the slots up to that one, and of those that were in use before.
    #[must_use]
    pub fn read(&self, slots: u16) -> Option<metrics::Traffic> {
        self.with(|sums| sums.read(slots))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Sums) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sums {
    fn read(&mut self, slots: u16) -> Option<metrics::Traffic> {
        let maps = self.maps.as_ref()?;
        let known = self.last.keys().map(|(slot, _)| *slot).max().unwrap_or(0);
        // Slot 0 is that of packets of unknown pods.
        for slot in 0..=slots.max(known) {
            for direction in [Direction::Ingress, Direction::Egress] {
                match maps.counters_of(slot, direction) {
                    Ok(now) => {
                        let last = self
                            .last
                            .insert((slot, direction as u8), now)
                            .unwrap_or_default();
                        add(&mut self.total[direction as usize], &now, &last);
                    }
                    Err(error) => tracing::warn!(slot, %error, "counters cannot be read"),
                }
            }
        }
        Some(traffic(&self.total))
    }
}

/// Adds what came since the last reading; counters that went back began anew.
fn add(total: &mut Counters, now: &Counters, last: &Counters) {
    let began_anew = now.allowed_packets < last.allowed_packets
        || now.suppressed < last.suppressed
        || now
            .denied
            .iter()
            .zip(&last.denied)
            .any(|(now, last)| now < last);
    let last = if began_anew {
        &Counters::default()
    } else {
        last
    };
    total.allowed_packets += now.allowed_packets - last.allowed_packets;
    total.allowed_bytes += now.allowed_bytes.saturating_sub(last.allowed_bytes);
    total.denied_bytes += now.denied_bytes.saturating_sub(last.denied_bytes);
    total.suppressed += now.suppressed - last.suppressed;
    total.audited += now.audited.saturating_sub(last.audited);
    for ((total, now), last) in total.denied.iter_mut().zip(&now.denied).zip(&last.denied) {
        *total += now - last;
    }
}

fn traffic(total: &[Counters; 2]) -> metrics::Traffic {
    let mut traffic = metrics::Traffic::default();
    for (direction, counters) in ["ingress", "egress"].into_iter().zip(total) {
        let of = |verdict, reason| Verdict {
            direction,
            verdict,
            reason,
        };
        traffic
            .packets
            .push((of("allowed", None), counters.allowed_packets));
        traffic
            .packets
            .push((of("audited", None), counters.audited));
        for (reason, &count) in Reason::ALL.into_iter().zip(&counters.denied) {
            traffic
                .packets
                .push((of("denied", Some(reason.name())), count));
        }
        traffic
            .bytes
            .push((of("allowed", None), counters.allowed_bytes));
        traffic
            .bytes
            .push((of("denied", None), counters.denied_bytes));
        traffic.suppressed += counters.suppressed;
    }
    traffic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_only_grow_when_a_slot_begins_anew() {
        let at = |allowed_packets| Counters {
            allowed_packets,
            ..Counters::default()
        };
        let mut total = Counters::default();
        for (last, now, expected) in [(0, 5, 5), (5, 7, 7), (7, 2, 9), (2, 2, 9)] {
            add(&mut total, &at(now), &at(last));
            assert_eq!(total.allowed_packets, expected);
        }
    }
}
