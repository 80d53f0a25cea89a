//! Compilation against the reference, on clusters that change at random.

use crate::{
    compile::{Compiler, Limits},
    table::Compiled,
    testing::{
        Event, NODE, Rng, World, addresses, disagreements, mirror, same_but_for_numbers, traffic,
    },
};

/// One random cluster and its changes.
fn run(seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let mut world = World::random(&mut rng);
    let mut compiler = Compiler::new(NODE, Limits::NONE);
    let mut copy = Compiled::default();
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

        let found = disagreements(
            &world.index(),
            NODE,
            compiler.compiled(),
            &addresses,
            &traffic,
        );
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
        events = world.step(&mut rng);
    }
}

#[test]
fn compiled_tables_agree_with_the_reference_whatever_happens_in_whatever_order() {
    let clusters = std::env::var("PALISADE_CLUSTERS").map_or(40, |n| n.parse().unwrap());
    for seed in 0..clusters {
        run(seed, 12);
    }
}
