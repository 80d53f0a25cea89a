//! How many writes the changes of a large cluster take.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use palisade_policy::{
    compile::{Compiler, Limits},
    model::Object,
    testing::{NODE, Scale},
};

use super::SETTINGS;
use crate::{
    apply::{Store, StoreError},
    dataplane::{Dataplane, SlotWanted, SlotsWanted},
    maps::Capacity,
    mirror::Dump,
    plan::op::Op,
};

/// Takes every write and keeps none.
#[derive(Default)]
struct Sink;

impl Store for Sink {
    fn perform(&mut self, _op: &Op) -> Result<(), StoreError> {
        Ok(())
    }

    fn dump(&self) -> Result<Dump, StoreError> {
        Ok(Dump::default())
    }

    fn sweep(&mut self, _slots: &HashSet<u16>) -> Result<(), StoreError> {
        Ok(())
    }

    fn capacity(&self) -> Capacity {
        Capacity::default()
    }
}

struct Node {
    compiler: Compiler,
    dataplane: Dataplane<Sink>,
    now: Instant,
}

impl Node {
    /// Compiles and applies; the number of writes, what the removal of freed cells takes included.
    fn update(&mut self, what: &str) -> usize {
        let start = Instant::now();
        let change = self.compiler.take_change();
        let compiled = self.compiler.compiled();
        let wanted: SlotsWanted = compiled
            .pods
            .keys()
            .zip(10..)
            .map(|(name, ifindex)| {
                let wanted = SlotWanted {
                    ifindex,
                    bridge: 0,
                    namespace: -1,
                };
                (name.clone(), wanted)
            })
            .collect();
        let compile = start.elapsed();
        let start = Instant::now();
        let report = self.dataplane.apply(compiled, &change, &wanted, self.now);
        let apply = start.elapsed();
        assert!(report.failures.is_empty() && report.left_out.is_empty());
        self.now += Duration::from_secs(5);
        let freed = self.dataplane.collect(self.now).expect("a sink");
        let counts = self.dataplane.mirror().counts();
        println!(
            "{what}: {} addresses, {} blocks, {} tables, {} classes changed; \
             {} writes and {freed} to collect, compiled in {compile:?}, planned in {apply:?}; \
             now {} addresses, {} blocks, {} cells, {} classes, {} tables",
            change.addresses.len(),
            change.blocks.len(),
            change.tables.len(),
            change
                .tables
                .iter()
                .flat_map(|table| &table.classes)
                .collect::<BTreeSet<_>>()
                .len(),
            report.writes,
            counts.peers_v4 + counts.peers_v6,
            counts.cidrs_v4 + counts.cidrs_v6,
            counts.cells,
            counts.classes().count(),
            counts.tables().count(),
        );
        report.writes + freed
    }
}

#[test]
fn writes_are_proportional_to_what_changes() {
    let scale = if std::env::var_os("PALISADE_LARGE").is_some() {
        Scale::LARGE
    } else {
        Scale::MEDIUM
    };
    let now = Instant::now();
    let dataplane = Dataplane::adopt_or_new(Sink, &SETTINGS, now).expect("a sink");
    let mut node = Node {
        compiler: Compiler::new(NODE, Limits::NONE),
        dataplane,
        now,
    };
    let mut pod: Option<Object> = None;
    for object in scale.objects() {
        if let Object::Pod(it) = &object {
            pod = Some(Object::Pod(it.clone()));
        }
        node.compiler.apply(object);
    }
    node.update("all");
    assert_eq!(node.update("nothing"), 0);
    let pod = pod.expect("a pod");
    node.compiler.delete(&pod.key());
    assert!(node.update("a pod goes") <= 2);
    node.compiler.apply(pod);
    assert!(node.update("a pod comes") <= 2);
    let counts = node.dataplane.mirror().counts();
    let tables = counts.tables().count();
    node.compiler.apply(scale.edited_policy());
    node.update("a policy changes");
    node.compiler.apply(scale.policy_before());
    node.update("and back");
    let pods = scale.pods / scale.namespaces;
    node.compiler.apply(scale.relabelled_namespace());
    assert!(node.update("a namespace is relabelled") < 2 * pods + 20 * tables * pods);
    node.compiler.apply(scale.namespace_before());
    node.update("and back");
    let rollout = (pods * 2 / 5).max(1);
    for (old, new) in scale.rollout(rollout) {
        node.compiler.delete(&old);
        node.compiler.apply(new);
    }
    node.update("a rollout");
}
