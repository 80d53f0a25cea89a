//! States that do not fit, and writes that fail: never more is allowed than the old or the new state allows.

use std::collections::HashSet;

use palisade_policy::table::Change;

use super::{Run, SETTINGS, Settings, Total, roomy, rounds};
use crate::{maps::Capacity, plan::OnOverflow};

const KEEP: Settings = Settings {
    on_overflow: OnOverflow::Keep,
    ..SETTINGS
};

/// Little room of some kinds, enough of the others.
fn tight(run: &mut super::world::Rng) -> Capacity {
    let mut capacity = roomy();
    let mut little = |room: &mut u32, least: u32| {
        if run.one_in(2) {
            *room = least + run.below(14) as u32;
        }
    };
    little(&mut capacity.peers_v4, 0);
    little(&mut capacity.peers_v6, 0);
    little(&mut capacity.cidrs_v4, 1);
    little(&mut capacity.cidrs_v6, 1);
    little(&mut capacity.cells, 0);
    little(&mut capacity.tables, 2);
    little(&mut capacity.port_sets, 2);
    little(&mut capacity.port_leaves, 2);
    little(&mut capacity.slots, 2);
    capacity
}

#[test]
fn a_state_that_does_not_fit_opens_nothing() {
    let mut total = Total::default();
    let (mut left_out, mut denied, mut kept, mut whole) = (0, 0, 0, 0);
    for seed in 0..rounds(40) as u64 {
        let settings = if seed % 2 == 0 { &SETTINGS } else { &KEEP };
        let capacity = tight(&mut super::world::Rng(seed * 7 + 5));
        let mut run = Run::new(seed + 2_000_000, true, capacity, settings);
        let keep = settings.on_overflow == OnOverflow::Keep;
        (
            run.dataplane.store_mut().tight,
            run.dataplane.store_mut().kept,
        ) = (true, keep);
        for _ in 0..20 {
            let (world, change) = run.next();
            if run.rng.one_in(6) {
                let life = run.rng.below(25);
                run.dataplane.store_mut().life = Some(life);
                run.apply(world, &change);
                run.succeed(settings);
                (
                    run.dataplane.store_mut().tight,
                    run.dataplane.store_mut().kept,
                ) = (true, keep);
                total.crashes += 1;
                continue;
            }
            let report = run.apply(world, &change);
            assert!(report.failures.is_empty(), "{:?}", report.failures);
            left_out += usize::from(!report.left_out.is_empty());
            denied += report.denied.len();
            kept += report.kept.len();
            if report.left_out.is_empty() && report.unplaced.is_empty() {
                run.assert_settled(&report);
                whole += 1;
            }
            run.tidy_up(&report);
        }
        total.updates += run.total.updates;
        total.writes += run.dataplane.store().checked;
    }
    println!("{total:?}, left out {left_out}, denied {denied}, kept {kept}, whole {whole}");
    assert!(left_out > 0 && denied > 0 && kept > 0 && whole > 0);
}

#[test]
fn a_write_that_fails_opens_nothing_and_is_made_up_for() {
    let mut total = Total::default();
    let (mut failures, mut denied) = (0, 0);
    for seed in 0..rounds(40) as u64 {
        let settings = if seed % 2 == 0 { &SETTINGS } else { &KEEP };
        let mut run = Run::new(seed + 3_000_000, true, roomy(), settings);
        for _ in 0..20 {
            let (world, change) = run.next();
            let failing: HashSet<usize> = (0..run.rng.below(4))
                .map(|_| 1 + run.rng.below(20))
                .collect();
            let store = run.dataplane.store_mut();
            store.failing = failing;
            store.tight = true;
            store.kept = settings.on_overflow == OnOverflow::Keep;
            let report = run.apply(world, &change);
            failures += report.failures.len();
            denied += report.denied.len();
            let store = run.dataplane.store_mut();
            store.failing.clear();
            store.tight = !report.failures.is_empty();
            if !report.failures.is_empty() {
                let report = run.apply(run.world.clone(), &Change::default());
                run.dataplane.store_mut().tight = false;
                run.assert_settled(&report);
            }
            run.tidy_up(&report);
        }
        total.updates += run.total.updates;
        total.writes += run.dataplane.store().checked;
    }
    println!("{total:?}, failures {failures}, denied {denied}");
    assert!(failures > 0 && denied > 0);
}

#[test]
fn room_that_is_made_is_used() {
    let capacity = Capacity {
        cells: 12,
        tables: 8,
        ..roomy()
    };
    let mut settled = 0;
    for seed in 0..rounds(40) as u64 {
        let mut run = Run::new(seed + 4_000_000, true, capacity, &SETTINGS);
        run.dataplane.store_mut().tight = true;
        for _ in 0..10 {
            let (world, change) = run.next();
            run.apply(world, &change);
        }
        // A state that takes little room.
        let mut world = run.world.clone();
        world.clear_policies();
        let change = world.change_since(&run.world);
        let report = run.apply(world, &change);
        for &slot in &report.gone {
            assert!(run.dataplane.release_slot(slot, run.now));
        }
        run.now += super::super::SWEEP;
        run.set_clock();
        run.dataplane.collect(run.now).expect("room is made");
        assert_eq!(run.kernel().cells.len(), 0);
        let report = run.apply(run.world.clone(), &Change::default());
        if report.unplaced.is_empty() {
            run.assert_settled(&report);
            settled += 1;
        }
    }
    assert!(settled > 0);
}
