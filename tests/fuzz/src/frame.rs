//! Frames: the programs' own sources, built for the host, on frames of any bytes, one after the other.
//!
//! A second [`Reader`] says what each frame is. To a pod that policy isolates nothing passes but what policy allows and
//! what continues a flow that policy allows; to one that is not, everything passes but what is spoofed.

use std::collections::HashMap;

use palisade_common::{
    value::ALLOW_ALL,
    verdict::Verdict::{self, Drop, Pass},
};
use palisade_kernel::Buffer;
use palisade_tests::rig::{
    Ends, Net, Program, Read, Reader, Reading, Scene, may_be_translated, samples,
};

pub use self::step::{Step, input};
use self::world::World;

mod step;
mod world;

/// Takes the steps that the bytes tell.
///
/// # Panics
/// Where a program says otherwise than it may.
pub fn run(bytes: &[u8]) {
    let mut world = World::new();
    let mut story = Story::default();
    for step in step::steps(bytes) {
        story.take(&mut world, &step);
    }
}

/// Each sample alone, and between others that go the other way.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for net in Net::BOTH {
        let (inward, outward) = (samples::seeds(net, false), samples::seeds(net, true));
        for (to, from) in inward.iter().zip(&outward) {
            let (to, from) = (Sent::whole(to), Sent::whole(from));
            let free = Free {
                ingress: false,
                egress: true,
            };
            seeds.extend([
                input(&[Step::ToPod(to.clone())]),
                input(&[Step::FromPod(from.clone(), Some(from.clone()))]),
                input(&[
                    Step::Policy(free),
                    Step::FromPod(from, None),
                    Step::Policy(Free::default()),
                    Step::ToPod(to),
                ]),
            ]);
        }
    }
    seeds
}

/// Which directions policy leaves alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// To the pod.
    pub ingress: bool,
    /// From the pod.
    pub egress: bool,
}

impl Free {
    fn of(self, at: Program) -> bool {
        match at {
            Program::ToPod => self.ingress,
            _ => self.egress,
        }
    }
}

/// What has happened.
struct Story {
    free: Free,
    /// Policy has changed since the first frame.
    changed: bool,
    readers: [Reader; 3],
    /// How flows were opened: by which way, and whether policy allows that where it isolates.
    flows: HashMap<Ends, Vec<(Program, bool)>>,
}

impl Default for Story {
    fn default() -> Self {
        let readers = [Program::FromPod, Program::ToPod, Program::ToWire].map(Reader::new);
        Self {
            free: Free::default(),
            changed: false,
            readers,
            flows: HashMap::new(),
        }
    }
}

impl Story {
    fn take(&mut self, world: &mut World, step: &Step<'_>) {
        match step {
            Step::Wait(seconds) => world.wait(*seconds),
            Step::Policy(free) => {
                self.changed |= self.free != *free && !self.flows.is_empty();
                self.free = *free;
                let table = |free, table| if free { ALLOW_ALL } else { table };
                world.tables(
                    table(free.ingress, Scene::INGRESS),
                    table(free.egress, Scene::EGRESS),
                );
            }
            Step::ToPod(sent) => {
                let mut buffer = sent.buffer();
                let verdict = world.to_pod(&mut buffer);
                self.judge(Program::ToPod, sent, verdict);
            }
            Step::FromPod(sent, leaves) => {
                let mut buffer = sent.buffer();
                let verdict = world.from_pod(&mut buffer);
                self.judge(Program::FromPod, sent, verdict);
                if let (Pass, Some(translated)) = (verdict, leaves) {
                    let mut onward = translated.buffer();
                    let verdict = world.to_wire(&mut buffer, &mut onward);
                    self.judge(Program::ToWire, translated, verdict);
                }
            }
        }
    }

    fn judge(&mut self, at: Program, sent: &Sent<'_>, verdict: Verdict) {
        let reader = match at {
            Program::ToPod => &mut self.readers[1],
            Program::ToWire => &mut self.readers[2],
            _ => &mut self.readers[0],
        };
        let reading = if sent.tagged {
            Reading {
                read: Read::Unreadable,
                ends: None,
                quoted: None,
            }
        } else {
            reader.read(sent.frame)
        };
        let told = format!("{at:?} {reading:?} {:02x?}", sent.frame);
        if self.free.of(at) {
            let expected = if reading.read == Read::Spoofed {
                Drop
            } else {
                Pass
            };
            assert_eq!(verdict, expected, "not isolated: {told}");
        } else if verdict == Pass {
            let may = reading.read == Read::Allowed || self.continues(&reading);
            assert!(may, "isolated: {told}");
        } else {
            // A connection whose permission was withdrawn is cut by what would open another, too.
            let must = reading.read == Read::Allowed && sent.is_within_reach() && !self.changed;
            assert!(!must, "allowed: {told}");
        }
        if let (Pass, Some(ends)) = (verdict, reading.ends) {
            // What is decided where it leaves opens nothing before.
            if at != Program::FromPod || !may_be_translated(ends.destination.0) {
                let opened = (at, reading.read == Read::Allowed);
                self.flows.entry(ends).or_default().push(opened);
            }
        }
    }

    /// Whether a frame belongs to a flow that policy allows, either way, or is an error about one.
    fn continues(&self, reading: &Reading) -> bool {
        let ends = [reading.ends, reading.quoted];
        let ways = ends.into_iter().flatten();
        ways.flat_map(|ends| [ends, ends.reversed()])
            .filter_map(|ends| self.flows.get(&ends))
            .flatten()
            .any(|&(at, allowed)| allowed || self.free.of(at))
    }
}

/// A frame, and how it lies in the kernel's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent<'a> {
    /// The whole.
    pub frame: &'a [u8],
    /// How many bytes are linear.
    pub linear: usize,
    /// It has a VLAN tag beside it.
    pub tagged: bool,
}

impl<'a> Sent<'a> {
    /// All of it linear, and without a tag.
    #[must_use]
    pub const fn whole(frame: &'a [u8]) -> Self {
        Self {
            frame,
            linear: frame.len(),
            tagged: false,
        }
    }

    fn buffer(&self) -> Buffer<'_> {
        let mut buffer = Buffer::new(self.frame, self.linear);
        buffer.context().vlan_present = self.tagged.into();
        buffer
    }

    /// Programs look at so many bytes and no more, and so do the arguments of theirs for reading none behind.
    fn is_within_reach(&self) -> bool {
        self.frame.len() <= 512 || self.linear >= self.frame.len()
    }
}

#[cfg(test)]
mod tests;
