//! Compilation against the reference, on clusters that change at random, and what it promises of numbers,
//! changes and limits.

use std::collections::BTreeSet;

use crate::{
    compile::{Compiler, Limits},
    table::{ClassId, Compiled},
    testing::{
        Event, NODE, Rng, World, addresses, disagreements, mirror, same_but_for_numbers, traffic,
    },
};

mod limits;
mod numbers;
mod status;

/// Clusters to try; more by `PALISADE_CLUSTERS`.
fn clusters() -> u64 {
    let asked = std::env::var("PALISADE_CLUSTERS");
    asked.map_or(25, |clusters| clusters.parse().unwrap())
}

/// One random cluster and its changes.
fn run(seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let mut world = World::random(&mut rng);
    let mut compiler = Compiler::new(NODE, Limits::NONE);
    let mut copy = Compiled::default();
    let mut numbers = Numbers::default();
    let (addresses, traffic) = (addresses(), traffic());
    let mut events: Vec<Event> = world.objects().into_iter().map(Event::Apply).collect();
    rng.shuffle(&mut events);
    for step in 0..steps {
        for event in events {
            event.tell(&mut compiler);
        }
        let change = compiler.take_change();
        mirror(&mut copy, compiler.compiled(), &change);
        assert_eq!(
            copy,
            *compiler.compiled(),
            "seed {seed}, step {step}: mirror"
        );
        numbers.check(compiler.compiled());

        let index = world.index();
        let found = disagreements(&index, NODE, compiler.compiled(), &addresses, &traffic);
        assert!(found.is_empty(), "seed {seed}, step {step}: {found:#?}");

        let mut objects = world.objects();
        rng.shuffle(&mut objects);
        let mut fresh = Compiler::new(NODE, Limits::NONE);
        for object in objects {
            fresh.apply(object);
        }
        fresh.take_change();
        if let Err(difference) = same_but_for_numbers(compiler.compiled(), fresh.compiled()) {
            panic!("seed {seed}, step {step}: {difference}");
        }
        assert_eq!(
            compiler.issues(),
            fresh.issues(),
            "seed {seed}, step {step}"
        );
        events = world.step(&mut rng);
    }
}

/// The numbers that were given so far.
#[derive(Default)]
struct Numbers {
    classes: BTreeSet<ClassId>,
    tables: BTreeSet<u32>,
    gone_classes: BTreeSet<ClassId>,
    gone_tables: BTreeSet<u32>,
}

impl Numbers {
    /// No number comes back.
    fn check(&mut self, compiled: &Compiled) {
        let classes = compiled.addresses.values().chain(compiled.blocks.values());
        let mut classes: BTreeSet<_> = classes.copied().collect();
        classes.remove(&ClassId::STRANGER);
        let tables: BTreeSet<_> = compiled.tables.keys().map(|id| id.0).collect();
        self.gone_classes.extend(self.classes.difference(&classes));
        self.gone_tables.extend(self.tables.difference(&tables));
        assert!(classes.is_disjoint(&self.gone_classes), "a class came back");
        assert!(tables.is_disjoint(&self.gone_tables), "a table came back");
        (self.classes, self.tables) = (classes, tables);
    }
}

#[test]
fn compiled_tables_agree_with_the_reference_whatever_happens_in_whatever_order() {
    for seed in 0..clusters() {
        run(seed, 12);
    }
}

#[test]
fn random_clusters_ask_for_more_than_yes_or_no() {
    let (mut pods, mut tables, mut cells, mut own, mut partial) = (0, 0, 0, 0, 0);
    for seed in 0..80 {
        let mut rng = Rng::new(seed);
        let world = World::random(&mut rng);
        let mut compiler = Compiler::new(NODE, Limits::NONE);
        for object in world.objects() {
            compiler.apply(object);
        }
        compiler.take_change();
        let compiled = compiler.compiled();
        pods += compiled.pods.len();
        tables += compiled.tables.len();
        own += compiled.addresses.len();
        for table in compiled.tables.values() {
            cells += table.cells.len();
            let mixed = |set: &crate::table::PortSet| !set.is_all() && !set.is_none();
            partial += table.cells.values().filter(|cell| mixed(&cell.tcp)).count();
        }
    }
    assert!(
        pods > 150 && tables > 100 && own > 100,
        "{pods} {tables} {own}"
    );
    assert!(cells > 150 && partial > 50, "{cells} {partial}");
}
