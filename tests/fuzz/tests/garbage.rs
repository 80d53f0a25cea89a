//! Random changes of objects and manifests: nothing panics or takes long, no policy vanishes for being wrong, and none opens
//! a pod. `PALISADE_FUZZ_OBJECTS` says how many are tried.

use palisade_fuzz::{
    dice::{Dice, count},
    manifests::{self, File, Version},
    objects::{Changed, Changes, Opening},
};

#[test]
fn mutated_objects_never_panic_and_policies_never_vanish() {
    let (mut dice, changes) = (Dice::Seed(0x9e37_79b9_7f4a_7c15), Changes::new());
    let tried = (0..count(40_000)).map(|_| changes.of_any(&mut dice));
    let flawed = tried.filter(|issues| *issues > 0).count();
    assert!(flawed > 1000, "the mutations reach the readers: {flawed}");
}

#[test]
fn what_cannot_be_read_of_a_policy_opens_no_pod() {
    let (mut dice, changes) = (Dice::Seed(0x0dd0_b0de_5eed_0001), Changes::new());
    let mut opening = Opening::new();
    let (mut flawed, mut narrowed) = (0, 0);
    for _ in 0..count(6000) {
        match opening.try_one(&changes, &mut dice) {
            Changed::Readable => {}
            Changed::Flawed => flawed += 1,
            Changed::Narrowed => narrowed += 1,
        }
    }
    println!("{flawed} flawed, {narrowed} allow less");
    assert!(flawed + narrowed > 500 && narrowed > 100);
}

#[test]
fn mutated_files_never_panic_and_take_no_time() {
    let (mut dice, seeds) = (Dice::Seed(0x5eed_f11e_0bad_cafe), manifests::seeds());
    assert!(seeds.len() > 20, "{} seeds", seeds.len());
    let (mut broken, mut flawed, mut whole) = (0, 0, 0);
    for _ in 0..count(5_000) {
        let mut text = dice.pick(&seeds).clone();
        for _ in 0..=dice.roll(4) {
            manifests::mutate(&mut text, &mut dice, &seeds);
        }
        match File::new().becomes(text.as_bytes()) {
            Version::Broken => broken += 1,
            Version::Flawed => flawed += 1,
            Version::Whole => whole += 1,
        }
    }
    println!("{broken} broken, {flawed} with issues, {whole} whole");
    assert!(broken > 0 && flawed > 0 && whole > 0);
}
