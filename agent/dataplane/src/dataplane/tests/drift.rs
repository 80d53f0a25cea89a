//! What others change in the maps.

use palisade_common::{
    key::CellKey,
    value::{Cell, Slot},
};
use palisade_policy::table::Change;

use super::{Run, SETTINGS, roomy};

/// Changes an entry that is there; `false` if there is none of that kind.
fn tamper(run: &mut Run, kind: usize) -> bool {
    let at = run.rng.below(1000);
    let kernel = &mut run.dataplane.store_mut().kernel;
    let one = |count: usize| (count > 0).then(|| at % count.max(1));
    match kind {
        0 | 1 => {
            let mut addresses: Vec<_> = kernel.peers.keys().copied().collect();
            addresses.sort_unstable();
            let Some(address) = one(addresses.len()).map(|at| addresses[at]) else {
                return false;
            };
            if kind == 0 {
                kernel.peers.remove(&address);
            } else if let Some(peer) = kernel.peers.get_mut(&address) {
                peer.class += 1;
            }
        }
        2 => {
            let mut nets: Vec<_> = kernel.cidrs.keys().copied().collect();
            nets.sort_unstable();
            let Some(net) = one(nets.len()).map(|at| nets[at]) else {
                return false;
            };
            kernel.cidrs.remove(&net);
        }
        3 => {
            let mut keys: Vec<CellKey> = kernel.cells.keys().copied().collect();
            keys.sort_unstable_by_key(|key| (key.table, key.class));
            let Some(key) = one(keys.len()).map(|at| keys[at]) else {
                return false;
            };
            kernel.cells.remove(&key);
        }
        4 => kernel.tables[2 + at % 20] = Cell::ALLOW,
        5 => {
            let used = (0..kernel.slots.len()).filter(|&at| kernel.slots[at] != Slot::default());
            let used: Vec<_> = used.collect();
            let Some(slot) = one(used.len()).map(|at| used[at]) else {
                return false;
            };
            kernel.slots[slot] = Slot::default();
        }
        6 => kernel.tables[0] = Cell::ALLOW,
        _ => kernel.config.secret += 1,
    }
    true
}

#[test]
fn what_others_change_in_the_maps_is_found_and_mended() {
    let mut found = [0; 8];
    for seed in 0..40 {
        let mut run = Run::new(seed + 2_000_000, seed % 2 == 0, roomy(), &SETTINGS);
        for (kind, found) in found.iter_mut().enumerate() {
            let (world, change) = run.next();
            let report = run.apply(world, &change);
            run.assert_settled(&report);
            let now = run.now;
            assert_eq!(
                run.dataplane.verify(now).expect("the maps"),
                0,
                "nobody did"
            );
            if !tamper(&mut run, kind) {
                continue;
            }
            assert_eq!(run.dataplane.verify(now).expect("the maps"), 1, "{kind}");
            *found += 1;
            let world = run.world.clone();
            let report = run.apply(world, &Change::default());
            run.assert_settled(&report);
            run.tidy_up(&report);
            assert_eq!(
                run.dataplane.verify(now).expect("the maps"),
                0,
                "it is mended"
            );
            assert_eq!(run.kernel().config.secret, SETTINGS.secret);
        }
    }
    println!("{found:?}");
    assert!(found.iter().all(|&count| count > 5), "{found:?}");
}
