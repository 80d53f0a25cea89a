use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use palisade_common::value::{Config, Slot};
use palisade_policy::table::{Change, ClassId};

use self::{
    kernel::Kernel,
    watch::Watched,
    world::{Rng, World},
};
use super::{ApplyReport, Dataplane, Settings};
use crate::{
    apply::Store, encode::ledger::GRACE, maps::Capacity, mirror::Mirror, plan::OnOverflow,
};

mod cluster;
mod drift;
mod kernel;
mod overflow;
mod scale;
mod watch;
mod world;

const SETTINGS: Settings = Settings {
    secret: 42,
    flags: Config::SPOOF_PROTECTION,
    hz: 250,
    event_rate: 10,
    on_overflow: OnOverflow::Deny,
};

fn roomy() -> Capacity {
    Capacity {
        slots: 64,
        tables: 200,
        port_sets: 400,
        port_leaves: 800,
        cells: 100_000,
        ..Capacity::default()
    }
}

struct Run {
    rng: Rng,
    world: World,
    dataplane: Dataplane<Watched>,
    now: Instant,
    total: Total,
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    updates: usize,
    crashes: usize,
    writes: usize,
}

impl Run {
    fn new(seed: u64, additive: bool, capacity: Capacity, settings: &Settings) -> Self {
        let now = Instant::now();
        let watched = Watched::new(Kernel::new(capacity), world::addresses());
        Self {
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            world: World::new(additive),
            dataplane: Dataplane::adopt_or_new(watched, settings, now).expect("new maps"),
            now,
            total: Total::default(),
        }
    }

    fn kernel(&self) -> &Kernel {
        &self.dataplane.store().kernel
    }

    fn set_clock(&mut self) {
        self.dataplane.store_mut().kernel.flight.now = self.now;
    }

    /// Another world than the present one, and what is other.
    fn next(&mut self) -> (World, Change) {
        let mut world = self.world.clone();
        // Now and then a batch of much that was queued.
        let most = [2, 5, 12, 40][self.rng.below(4)];
        for _ in 0..=self.rng.below(most) {
            world.mutate(&mut self.rng);
        }
        let change = world.change_since(&self.world);
        (world, change)
    }

    fn apply(&mut self, world: World, change: &Change) -> ApplyReport {
        self.now += Duration::from_millis(100);
        self.dataplane.set_node_addresses(world.node.clone());
        self.set_clock();
        self.dataplane.store_mut().expect(&world);
        let report = self
            .dataplane
            .apply(&world.compiled, change, &world.wanted, self.now);
        self.world = world;
        self.total.updates += 1;
        report
    }

    /// The agent is gone; another takes over what is in the kernel, later than any program in flight.
    fn succeed(&mut self, settings: &Settings) {
        self.now += GRACE;
        let kernel = self.kernel().clone();
        let peers = self.dataplane.store().peers.clone();
        let checked = self.dataplane.store().checked;
        let mut watched = Watched::new(kernel, peers);
        watched.checked = checked;
        self.dataplane =
            Dataplane::adopt_or_new(watched, settings, self.now).expect("the maps of before");
    }

    fn tidy_up(&mut self, report: &ApplyReport) {
        let world = self.world.clone();
        self.dataplane.store_mut().expect(&world);
        for &slot in &report.gone {
            if self.rng.one_in(2) {
                assert!(self.dataplane.release_slot(slot, self.now));
            }
        }
        self.now += Duration::from_millis(self.rng.below(3000) as u64);
        self.set_clock();
        self.dataplane.collect(self.now).expect("room is made");
    }

    /// Asserts that the kernel is what the state says, with nothing left over.
    fn assert_settled(&self, report: &ApplyReport) {
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(report.left_out.is_empty(), "{:?}", report.left_out);
        assert_eq!(report.ready.len(), self.world.pods().count());
        let kernel = self.kernel();
        assert!(
            self.dataplane.store().reached(),
            "the new state is not reached"
        );
        assert!(self.dataplane.store().audits(), "other is audited");
        for (name, pod) in self.world.pods() {
            let slot = &kernel.slots[usize::from(report.ready[name])];
            assert_eq!(slot.owner, crate::encode::owner(&pod.uid));
            for address in &pod.addresses {
                assert_eq!(kernel.peers[address].slot, report.ready[name]);
            }
        }
        for &address in &self.dataplane.store().peers {
            let entry = kernel.peers.get(&address).copied();
            let translated = self.world.node.contains(&address)
                || self.world.compiled.services.contains(&address);
            let local = self
                .world
                .pods()
                .any(|(_, pod)| pod.addresses.contains(&address));
            let own = self.world.compiled.addresses.contains_key(&address);
            assert_eq!(
                entry.is_some(),
                translated || local || own,
                "entry of {address}"
            );
            let entry = entry.unwrap_or_default();
            assert_eq!(entry.flags & 1 == 1, translated, "flags of {address}");
            assert_eq!(entry.slot != 0, local, "slot of {address}");
        }
        assert_eq!(
            kernel.cidrs.keys().collect::<HashSet<_>>(),
            self.world.compiled.blocks.keys().collect::<HashSet<_>>(),
        );
        self.assert_coarse();
        assert_same(self.dataplane.mirror(), kernel);
    }

    /// As many numbers as classes, as many tables as are used, and no cell that says what the default says.
    fn assert_coarse(&self) {
        let kernel = self.kernel();
        let mut meaning = BTreeMap::new();
        let classes = &self.world.compiled;
        for &address in &self.dataplane.store().peers {
            let class = classes.addresses.get(&address).or_else(|| {
                crate::plan::nets::around(&classes.blocks, address).map(|(_, class)| class)
            });
            let class = class.copied().unwrap_or(ClassId::STRANGER);
            let number = kernel.class(address);
            let before = meaning.insert(number, class);
            assert!(
                before.is_none_or(|before| before == class),
                "a number of two classes"
            );
        }
        let numbers = meaning.len();
        let classes: HashSet<_> = meaning.into_values().collect();
        assert_eq!(numbers, classes.len(), "a class has two numbers");
    }
}

/// Asserts that the mirror is what a successor would read.
fn assert_same(mirror: &Mirror, kernel: &Kernel) {
    let read = Mirror::from(kernel.dump().expect("a dump"));
    let sorted = |mirror: &Mirror| {
        let mut peers: Vec<_> = mirror.peers().map(|(a, p)| (*a, *p)).collect();
        peers.sort_unstable_by_key(|(address, _)| *address);
        let mut cells: Vec<_> = mirror
            .tables()
            .flat_map(|table| {
                mirror
                    .cells(table)
                    .map(move |(class, cell)| (table, class, *cell))
            })
            .collect();
        cells.sort_unstable_by_key(|&(table, class, _)| (table, class));
        let mut defaults: Vec<_> = mirror
            .tables()
            .map(|table| (table, mirror.default_cell(table)))
            .collect();
        defaults.sort_unstable_by_key(|(table, _)| *table);
        (peers, cells, defaults)
    };
    assert_eq!(sorted(mirror), sorted(&read));
    assert_eq!(mirror.blocks(), read.blocks());
    assert_eq!(mirror.slots(), read.slots());
    assert_eq!(mirror.config(), read.config());
    for (number, set) in read.sets() {
        assert_eq!(mirror.sets().get(number), Some(set), "set {number}");
    }
}

fn rounds(default: usize) -> usize {
    std::env::var("PALISADE_ROUNDS").map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn every_write_of_random_updates_leaves_verdicts_right() {
    let mut total = Total::default();
    for seed in 0..rounds(15) as u64 {
        let mut run = Run::new(seed, seed % 2 == 0, roomy(), &SETTINGS);
        for _ in 0..30 {
            let (world, change) = run.next();
            let report = run.apply(world, &change);
            run.assert_settled(&report);
            run.tidy_up(&report);
        }
        total.updates += run.total.updates;
        total.writes += run.dataplane.store().checked;
    }
    println!("{total:?}");
    assert!(total.writes > total.updates);
}

#[test]
fn every_write_of_a_successor_of_a_crash_leaves_verdicts_right() {
    let mut total = Total::default();
    for seed in 0..rounds(15) as u64 {
        let mut run = Run::new(seed + 1_000_000, seed % 2 == 0, roomy(), &SETTINGS);
        for _ in 0..30 {
            let (world, change) = run.next();
            if run.rng.one_in(2) {
                let life = run.rng.below(25);
                run.dataplane.store_mut().life = Some(life);
                run.apply(world, &change);
                run.succeed(&SETTINGS);
                total.crashes += 1;
            } else {
                let report = run.apply(world, &change);
                run.assert_settled(&report);
                run.tidy_up(&report);
            }
        }
        total.updates += run.total.updates;
        total.writes += run.dataplane.store().checked;
    }
    println!("{total:?}");
    assert!(total.crashes > 0);
}

#[test]
fn a_free_slot_is_all_zero() {
    let run = Run::new(1, true, roomy(), &SETTINGS);
    assert!(
        run.kernel()
            .slots
            .iter()
            .all(|slot| *slot == Slot::default())
    );
    assert_eq!(run.kernel().config.secret, SETTINGS.secret);
}
