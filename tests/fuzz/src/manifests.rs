//! Manifests as text: whatever they hold, reading neither panics nor takes long, what is wrong is told, and what is
//! compiled of them is what the reference says.

use std::{collections::HashSet, net::IpAddr};

use palisade::{
    objects::Objects,
    source::{
        Change,
        file::{Folder, Reads},
    },
};
use palisade_policy::{
    compile::{Compiler, Limits},
    model::Protocol,
    table::Traffic,
    testing::disagreements,
};

use crate::{
    dice::{Dice, in_time},
    objects::{NODE, around},
};

/// Parts the versions of a file; no text has such a byte.
const NEXT: u8 = 0xff;

/// The most pods and policies about which the reference is asked: it is slow.
const FEW: usize = 40;

/// Reads the bytes as versions of a file that come one after the other, compiles what they say, and reads them as
/// whoever judges policies before they are applied.
///
/// # Panics
/// Where that may not be.
pub fn run(bytes: &[u8]) {
    let mut file = File::new();
    for version in bytes.split(|byte| *byte == NEXT) {
        file.becomes(version);
    }
    file.holds_against_the_reference();
    if let Ok(text) = std::str::from_utf8(bytes) {
        in_time(text, || Objects::from_text("file", text));
    }
}

/// What a version of a file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Neither YAML nor JSON.
    Broken,
    /// Some of it cannot be used.
    Flawed,
    /// All of it can.
    Whole,
}

/// A file in a folder that is watched.
pub struct File {
    folder: Folder,
    compiler: Compiler,
}

impl Default for File {
    fn default() -> Self {
        Self::new()
    }
}

impl File {
    /// One that is not there yet, where there are some pods already.
    #[must_use]
    pub fn new() -> Self {
        let mut compiler = Compiler::new(NODE, Limits::NONE);
        for object in around() {
            compiler.apply(object);
        }
        Self {
            folder: Folder::new(""),
            compiler,
        }
    }

    /// Takes in a version of it.
    ///
    /// # Panics
    /// Where that takes long, or a text that cannot be read changes anything.
    pub fn becomes(&mut self, text: &[u8]) -> Version {
        let shown = String::from_utf8_lossy(text);
        let reads = Reads::of("file.yaml", text.to_vec());
        let batch = in_time(&shown, || self.folder.take(reads, &HashSet::new()));
        let Some(batch) = batch else {
            return Version::Whole;
        };
        let broken = batch.issues.iter().any(|issue| issue.object.is_none());
        assert!(!broken || batch.changes.is_empty(), "{shown:?}");
        for issue in batch.issues.iter() {
            assert!(!issue.problem.to_string().is_empty());
        }
        in_time(&shown, || {
            for change in batch.changes {
                match change {
                    Change::Apply(object) => {
                        if let Some(object) = object.into_model() {
                            self.compiler.apply(object);
                        }
                    }
                    Change::Delete(key) => {
                        if let Some(key) = key.into_model() {
                            self.compiler.delete(&key);
                        }
                    }
                }
            }
            self.compiler.take_change();
        });
        match (broken, batch.issues.is_empty()) {
            (true, _) => Version::Broken,
            (false, false) => Version::Flawed,
            (false, true) => Version::Whole,
        }
    }

    /// Holds what is compiled against the reference.
    ///
    /// # Panics
    /// Where they disagree.
    pub fn holds_against_the_reference(&mut self) {
        self.compiler.take_change();
        let index = self.compiler.index();
        if index.pods().count() > FEW || index.policies().count() > FEW {
            return;
        }
        let owned = index.pods().flat_map(|pod| &pod.addresses).copied();
        let strangers = ["10.1.0.1", "192.0.2.1", "fd00::7"];
        let strangers = strangers.map(|text| text.parse().expect("an address"));
        let peers: Vec<IpAddr> = owned.chain(strangers).collect();
        let ports = [0, 53, 80, 443, 65_535];
        let traffic = ports.iter().flat_map(|&port| {
            let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
            protocols.map(|protocol| Traffic::Port(protocol, port))
        });
        let traffic: Vec<_> = traffic.chain([Traffic::Other]).collect();
        let found = disagreements(index, NODE, self.compiler.compiled(), &peers, &traffic);
        assert!(found.is_empty(), "{found:#?}");
    }
}

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
///
/// # Panics
/// Where a folder cannot be read.
#[must_use]
pub fn seeds() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
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
pub fn mutate(text: &mut String, dice: &mut Dice<'_>, seeds: &[String]) {
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
