//! What is done with bytes of any kind: the targets of libFuzzer, and the corpora of what it has found.
//!
//! A target takes any bytes and panics where something holds that may not. libFuzzer calls it (`cargo xtask fuzz`), and
//! tests replay what it has found.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod dice;
pub mod frame;
pub mod manifests;
pub mod objects;

/// A target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Frames, one after the other, by the programs.
    Frame,
    /// Manifests as text.
    Manifests,
    /// Objects with random changes.
    Objects,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Frame, Self::Manifests, Self::Objects];

    /// Its name, and that of its corpus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Manifests => "manifests",
            Self::Objects => "objects",
        }
    }

    /// Does with the bytes what it is for.
    ///
    /// # Panics
    /// Where something holds that may not.
    pub fn run(self, bytes: &[u8]) {
        match self {
            Self::Frame => frame::run(bytes),
            Self::Manifests => manifests::run(bytes),
            Self::Objects => objects::run(bytes),
        }
    }
}
