//! What libFuzzer has found, again.

use palisade_fuzz::{
    Target, corpus,
    dice::{Dice, MOST, in_time},
};

/// Every input, as it is and with the end cut off.
fn replay(target: Target) {
    let path = corpus::place(target);
    let mut inputs = corpus::read(&path);
    assert!(
        inputs.len() > 40,
        "{} has {} inputs",
        path.display(),
        inputs.len()
    );
    let size: usize = inputs.iter().map(Vec::len).sum();
    println!("{}: {} inputs of {size} bytes", target.name(), inputs.len());
    let finds = corpus::finds(target);
    if finds.exists() {
        inputs.extend(corpus::read(&finds));
    }
    for input in &inputs {
        target.run(input);
        target.run(&input[..input.len() / 2]);
    }
}

#[test]
fn frames_found_by_libfuzzer_pass_only_as_policy_allows() {
    replay(Target::Frame);
}

#[test]
fn manifests_found_by_libfuzzer_mean_what_the_reference_says() {
    replay(Target::Manifests);
}

#[test]
fn objects_found_by_libfuzzer_open_no_pod() {
    replay(Target::Objects);
}

#[test]
fn seeds_hold_too() {
    for target in Target::ALL {
        for seed in corpus::seeds(target) {
            target.run(&seed);
        }
    }
}

#[test]
#[should_panic(expected = "round and round")]
fn what_takes_longer_than_it_may_fails() {
    in_time("round and round", || {
        let begun = std::time::Instant::now();
        let mut dice = Dice::Seed(1);
        while begun.elapsed() < 20 * MOST && dice.roll(2) < 2 {}
    });
}
