//! Frames: the programs' own sources, built for the host, on frames of any bytes, one after the other.
//!
//! A second [`Reader`] says what each frame is. To a pod that policy isolates nothing passes but what policy allows and
//! what continues a flow that policy allows; to one that is not, everything passes but what is spoofed.

use std::{collections::HashMap, net::IpAddr};

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
    /// Policy has changed since the first frame, or time has passed, after which first fragments are forgotten.
    changed: bool,
    readers: [Reader; 3],
    /// How flows were opened: by which way, and whether policy allows that where it isolates.
    flows: HashMap<Flow, Vec<(Program, bool)>>,
}

/// A flow as the pod has it: a pod is one, whatever its address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Flow {
    remote: (IpAddr, u32),
    port: u32,
    protocol: u8,
}

impl Flow {
    fn of(at: Program, ends: Ends) -> Self {
        let ends = if at == Program::ToPod {
            ends
        } else {
            ends.reversed()
        };
        Self {
            remote: ends.source,
            port: ends.destination.1,
            protocol: ends.protocol,
        }
    }
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
            Step::Wait(seconds) => {
                self.changed = true;
                world.wait(*seconds);
            }
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
                let verdict = world.arrive(&mut sent.buffer());
                let reading = self.read(Program::ToPod, sent);
                self.judge(Program::ToPod, sent, &reading, (verdict, false));
            }
            Step::FromPod(sent, leaves) => {
                let mut buffer = sent.buffer();
                let verdict = world.send(&mut buffer);
                let reading = self.read(Program::FromPod, sent);
                let replies = self.continues(Program::FromPod, &reading);
                self.judge(Program::FromPod, sent, &reading, (verdict, false));
                let Some(onward) = leaves.as_ref().filter(|_| verdict == Pass) else {
                    return;
                };
                let there = self.read(Program::ToWire, onward);
                if translates(&reading, &there) {
                    let verdict = world.leave(&mut buffer, &mut onward.buffer());
                    self.judge(Program::ToWire, onward, &there, (verdict, replies));
                }
            }
        }
    }

    fn read(&mut self, at: Program, sent: &Sent<'_>) -> Reading {
        if sent.tagged {
            return Reading {
                read: Read::Unreadable,
                ends: None,
                quoted: None,
            };
        }
        let [from_pod, to_pod, to_wire] = &mut self.readers;
        match at {
            Program::ToPod => to_pod,
            Program::ToWire => to_wire,
            _ => from_pod,
        }
        .read(sent.frame)
    }

    /// `replies`: it belonged to a flow before it was translated back.
    fn judge(
        &mut self,
        at: Program,
        sent: &Sent<'_>,
        reading: &Reading,
        (verdict, replies): (Verdict, bool),
    ) {
        let told = || format!("{at:?} {reading:?} {:02x?}", sent.frame);
        if self.free.of(at) {
            let expected = if reading.read == Read::Spoofed {
                Drop
            } else {
                Pass
            };
            assert_eq!(verdict, expected, "not isolated: {}", told());
        } else if verdict == Pass {
            let may = reading.read == Read::Allowed || replies || self.continues(at, reading);
            assert!(may, "isolated: {}", told());
        } else {
            // A connection whose permission was withdrawn is cut by what would open another, too.
            let must = reading.read == Read::Allowed && sent.is_within_reach() && !self.changed;
            assert!(!must, "allowed: {}", told());
        }
        if let (Pass, Some(ends)) = (verdict, reading.ends) {
            // What is decided where it leaves opens nothing before.
            if at != Program::FromPod || !may_be_translated(ends.destination.0) {
                let opened = (at, reading.read == Read::Allowed);
                let openings = self.flows.entry(Flow::of(at, ends)).or_default();
                if !openings.contains(&opened) {
                    openings.push(opened);
                }
            }
        }
    }

    /// Whether a frame belongs to a flow that policy allows, or is an error about one.
    fn continues(&self, at: Program, reading: &Reading) -> bool {
        // What an error quotes went the other way.
        let quoted = reading.quoted.map(Ends::reversed);
        let ends = [reading.ends, quoted].into_iter().flatten();
        let mut flows = ends.map(|ends| Flow::of(at, ends));
        flows.any(|flow| {
            let own = [Net::V4.pod, Net::V6.pod].contains(&flow.remote.0);
            let openings = self.flows.get(&flow).into_iter().flatten();
            // What the pod has with itself nothing ends.
            let holds = |&(at, allowed): &(Program, bool)| {
                allowed || own && at != Program::ToPod || self.free.of(at)
            };
            openings.into_iter().any(holds)
        })
    }
}

/// Whether others may have made one of the other: a translation changes where a packet goes.
fn translates(sent: &Reading, onward: &Reading) -> bool {
    match (sent.ends, onward.ends) {
        (Some(sent), Some(onward)) => {
            (sent.source, sent.protocol) == (onward.source, onward.protocol)
        }
        _ => sent == onward,
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
