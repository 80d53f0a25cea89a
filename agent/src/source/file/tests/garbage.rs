//! Mutated files: whatever they hold, reading neither panics nor takes long, and what is read of a policy never vanishes for
//! being wrong. The seeds are the manifests that are committed. `PALISADE_FUZZ_OBJECTS` says how many are tried.

use crate::source::{
    dice::{Dice, MOST, count, taken},
    file::document::Documents,
};

/// What files are made of, and what breaks them.
const SCRAPS: &[&str] = &[
    "\n---\n",
    "---",
    "...",
    "\n",
    "  ",
    "\t",
    ": ",
    "- ",
    "? ",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!str ",
    "!!binary ",
    "|\n",
    ">-\n",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "\"",
    "'",
    "\\",
    "%YAML 1.2\n",
    "@",
    "`",
    "null",
    "~",
    "true",
    "0x10",
    "1e400",
    ".inf",
    "\u{0}",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "kind: NetworkPolicy\n",
    "podSelector: {}\n",
    "ingress: []\n",
];

/// The seeds: every manifest of `deploy` and of the demo.
fn seeds() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("deploy"), root.join("tests/demo")];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                texts.push(std::fs::read_to_string(path).expect("a file"));
            }
        }
    }
    // In one order everywhere; of long ones the beginning does.
    texts.sort();
    texts.retain(|text| text.len() < 4096);
    texts
}

/// A boundary of characters at or after a place.
fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

/// Changes one place.
fn mutate(text: &mut String, dice: &mut Dice, seeds: &[String]) {
    let at = boundary(text, dice.roll(text.len() + 1));
    let end = boundary(text, (at + dice.roll(40)).min(text.len()));
    match dice.roll(6) {
        0 => text.replace_range(at..end, ""),
        1 => {
            let part = text[at..end].to_owned();
            text.insert_str(at, &part);
        }
        2 => {
            let other = dice.pick(seeds);
            let from = boundary(other, dice.roll(other.len() + 1));
            text.insert_str(
                at,
                &other[from..boundary(other, (from + 200).min(other.len()))],
            );
        }
        3 => text.truncate(at),
        _ => text.insert_str(at, dice.pick::<&str>(SCRAPS)),
    }
}

#[test]
fn mutated_files_never_panic_and_take_no_time() {
    let (mut dice, seeds) = (Dice(0x5eed_f11e_0bad_cafe), seeds());
    assert!(seeds.len() > 20, "{} seeds", seeds.len());
    let nothing = Documents::default();
    let (mut broken, mut flawed, mut whole) = (0, 0, 0);
    for _ in 0..count(5_000) {
        let mut text = dice.pick(&seeds).clone();
        for _ in 0..=dice.roll(4) {
            mutate(&mut text, &mut dice, &seeds);
        }
        let begun = taken();
        let read = Documents::parse(&text, &"file".into(), &nothing);
        let took = taken() - begun;
        assert!(took < MOST, "{took:?}: {text}");
        match read {
            Ok(documents) if documents.issues().next().is_some() => flawed += 1,
            Ok(_) => whole += 1,
            Err(problem) => {
                broken += 1;
                assert!(!problem.to_string().is_empty());
            }
        }
    }
    println!("{broken} broken, {flawed} with issues, {whole} whole");
    assert!(broken > 0 && flawed > 0 && whole > 0);
}
