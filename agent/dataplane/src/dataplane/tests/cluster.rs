//! What the compiler makes of random clusters.

use palisade_policy::{
    compile::{Compiler, Limits},
    testing::{self, NODE},
};

use super::{Run, SETTINGS, Total, roomy, rounds};
use crate::dataplane::SlotWanted;

#[test]
fn every_write_of_a_compiled_update_leaves_verdicts_right() {
    let mut total = Total::default();
    for seed in 0..rounds(10) as u64 {
        let mut run = Run::new(seed + 5_000_000, true, roomy(), &SETTINGS);
        run.dataplane.store_mut().peers = testing::addresses();
        let mut rng = testing::Rng::new(seed);
        let mut cluster = testing::World::random(&mut rng);
        let mut compiler = Compiler::new(NODE, Limits::NONE);
        for object in cluster.objects() {
            compiler.apply(object);
        }
        for _ in 0..25 {
            let change = compiler.take_change();
            let mut world = run.world.clone();
            world.compiled = compiler.compiled().clone();
            world.wanted.clear();
            for (name, pod) in &world.compiled.pods {
                let wanted = SlotWanted {
                    ifindex: 7 + crate::encode::owner(&pod.uid) % 1000,
                    bridge: 0,
                    namespace: -1,
                };
                world.wanted.insert(name.clone(), wanted);
            }
            if run.rng.one_in(8) {
                world.node = [testing::addresses()[0]].into();
            }
            let crash = run.rng.one_in(4);
            run.dataplane.store_mut().life = crash.then_some(run.rng.below(40));
            let report = run.apply(world, &change);
            if run.dataplane.store().died {
                run.succeed(&SETTINGS);
                total.crashes += 1;
            } else {
                run.dataplane.store_mut().life = None;
                run.assert_settled(&report);
                run.tidy_up(&report);
            }
            for event in cluster.step(&mut rng) {
                event.tell(&mut compiler);
            }
        }
        total.updates += run.total.updates;
        total.writes += run.dataplane.store().checked;
    }
    println!("{total:?}");
    assert!(total.crashes > 0 && total.writes > 5 * total.updates);
}
