//! Every cell of every case of the corpora, and random clusters: compiled, written by the agent's own writer
//! and asked of the programs.

use palisade_common::mark::State;
use palisade_policy::{
    evaluate::allows,
    index::Index,
    table::Direction,
    testing::{NODE, Rng, World, addresses, traffic},
};
use palisade_tests::{
    corpus::Corpus,
    rig::{Node, Rig, replay},
    skip_without_root,
};

#[test]
fn the_programs_agree_with_every_cell_of_the_end_to_end_tests() {
    all_cells(Corpus::E2e, 5186);
}

#[test]
fn the_programs_agree_with_every_cell_of_cyclonus() {
    all_cells(Corpus::Cyclonus, 109_956);
}

#[test]
fn the_programs_agree_with_every_cell_of_the_recipes() {
    all_cells(Corpus::Recipes, 548);
}

#[test]
fn real_frames_get_the_same_verdicts() {
    if skip_without_root() {
        return;
    }
    let mut nodes = [Node::new("node1", Rig::new().with_frames())];
    let mut cells = 0;
    for case in Corpus::E2e.cases().unwrap() {
        cells += replay(&case, 4, &mut nodes);
    }
    assert_eq!(cells, 5186);
}

fn all_cells(corpus: Corpus, expected: usize) {
    if skip_without_root() {
        return;
    }
    // Whatever the family, half of the pods are on either node.
    for family in [4, 6] {
        let mut nodes = ["node1", "node2"].map(|name| Node::new(name, Rig::new()));
        let mut cells = 0;
        for case in corpus.cases().unwrap() {
            cells += replay(&case, family, &mut nodes);
        }
        // Addresses outside of the cluster are of one family.
        assert!(
            cells == expected || family == 6 && cells * 2 > expected,
            "{cells}"
        );
        println!("{corpus:?}: {cells} cells of IPv{family}");
    }
}

/// Changes of each random cluster.
const STEPS: usize = 12;

#[test]
fn the_programs_equal_the_reference_after_every_change_of_random_clusters() {
    if skip_without_root() {
        return;
    }
    let mut node = Node::new(NODE, Rig::new());
    let mut asked = 0;
    let seeds = std::env::var("PALISADE_FUZZ_WORLDS").ok();
    for seed in 0..seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(12) {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut world = World::random(&mut rng);
        node.reset(&world.objects());
        for step in 0..STEPS {
            node.update();
            asked += compare(&node, &world.index(), &format!("seed {seed}, step {step}"));
            for event in world.step(&mut rng) {
                event.tell(&mut node.compiler);
            }
        }
    }
    println!("{asked} verdicts");
    assert!(asked > 100_000);
}

/// Holds the verdict of every local pod with every address against the reference.
fn compare(node: &Node, index: &Index, context: &str) -> usize {
    let mut asked = 0;
    let pods = node.compiler.compiled().pods.clone();
    for (name, local) in pods {
        let pod = index.pod(&name).expect("a compiled pod is known");
        for own in &local.addresses {
            let peers = addresses()
                .into_iter()
                .filter(|peer| peer.is_ipv4() == own.is_ipv4() && !local.addresses.contains(peer));
            for peer in peers {
                for traffic in traffic() {
                    let expected = |direction| allows(index, pod, direction, peer, traffic);
                    let inward = node.packet(peer, *own, traffic);
                    let passes = node.from_outside(&name, &inward.packet());
                    let cell = format!("{name} with {peer} on {traffic}: {context}");
                    assert_eq!(passes, expected(Direction::Ingress), "ingress of {cell}");
                    let outward = node.packet(*own, peer, traffic);
                    let packet = outward.packet();
                    let mut passes = node.from_pod(&name, &packet);
                    if node.compiler.compiled().services.contains(&peer) {
                        assert!(passes, "undecided: {cell}");
                        passes = node.leaves(&name, State::Undecided, &outward, None, &packet);
                    }
                    assert_eq!(passes, expected(Direction::Egress), "egress of {cell}");
                    asked += 2;
                }
            }
        }
    }
    asked
}
