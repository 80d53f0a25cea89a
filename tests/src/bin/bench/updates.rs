//! Updates of a large cluster, compiled and written into the kernel's maps.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use palisade_policy::testing::{NODE, Scale};
use palisade_tests::rig::{Node, Rig};

/// Turns of a change and its undoing; the middle one counts.
const TURNS: usize = 5;
/// Entries of the tables of flows: none is needed.
const FLOWS: u32 = 1024;

pub(crate) fn print() {
    for (name, scale) in [("medium", Scale::MEDIUM), ("large", Scale::LARGE)] {
        let Scale {
            pods,
            label_sets,
            policies,
            relevant,
            cidrs,
            local,
            ..
        } = scale;
        println!(
            "\n{name}: {pods} pods in {label_sets} label sets, {local} of them on the node, {policies} policies, \
             {relevant} of them relevant there, {cidrs} CIDRs\n"
        );
        println!("| update | compile, ms | write, ms | writes | classes | cells |");
        println!("|---|---|---|---|---|---|");
        cluster(&scale);
    }
}

/// What an update took, and what the maps hold after it.
struct Update {
    compile: Duration,
    write: Duration,
    writes: usize,
    classes: usize,
    cells: u32,
}

fn measure(node: &mut Node) -> Update {
    let begun = Instant::now();
    let change = node.compiler.take_change();
    let compile = begun.elapsed();
    let begun = Instant::now();
    let writes = node.apply(&change);
    let write = begun.elapsed();
    let counts = node.dataplane.mirror().counts();
    Update {
        compile,
        write,
        writes,
        classes: counts.classes().count(),
        cells: counts.cells,
    }
}

fn row(name: &str, mut updates: Vec<Update>) {
    updates.sort_by_key(|update| update.compile + update.write);
    let Update {
        compile,
        write,
        writes,
        classes,
        cells,
    } = &updates[updates.len() / 2];
    let [compile, write] = [compile, write].map(|time| time.as_secs_f64() * 1e3);
    println!("| {name} | {compile:.1} | {write:.1} | {writes} | {classes} | {cells} |");
}

fn cluster(scale: &Scale) {
    let mut node = Node::new(NODE, Rig::sized(FLOWS));
    for object in scale.objects() {
        node.compiler.apply(object);
    }
    row("all, at first", vec![measure(&mut node)]);

    let namespace = scale.pods / scale.namespaces;
    let rollout = scale.rollout(namespace.min(2_000));
    let replaced: HashSet<_> = rollout.iter().map(|(old, _)| old).collect();
    let before: Vec<_> = scale
        .objects()
        .filter(|object| replaced.contains(&object.key()))
        .collect();
    let mut found = [const { Vec::new() }; 3];
    for _ in 0..TURNS {
        node.compiler.apply(scale.edited_policy());
        found[0].push(measure(&mut node));
        node.compiler.apply(scale.policy_before());
        node.update();

        node.compiler.apply(scale.relabelled_namespace());
        found[1].push(measure(&mut node));
        node.compiler.apply(scale.namespace_before());
        node.update();

        for (old, new) in &rollout {
            node.compiler.delete(old);
            node.compiler.apply(new.clone());
        }
        found[2].push(measure(&mut node));
        for ((_, new), old) in rollout.iter().zip(&before) {
            node.compiler.delete(&new.key());
            node.compiler.apply(old.clone());
        }
        node.update();
    }
    let [edited, relabelled, rolled] = found;
    row("a policy is edited", edited);
    row(
        &format!("a namespace of {namespace} pods is relabelled"),
        relabelled,
    );
    row(&format!("a rollout of {} pods", rollout.len()), rolled);
}
