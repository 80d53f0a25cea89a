//! What happens, as bytes.

use super::{Free, Sent};

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// So many seconds pass.
    Wait(u8),
    /// Policy changes.
    Policy(Free),
    /// A frame comes to the pod from outside the node.
    ToPod(Sent<'a>),
    /// The pod sends a frame; if it may, this leaves the node, which others may have translated.
    FromPod(Sent<'a>, Option<Sent<'a>>),
}

/// What a step's first byte says: the kind in the lowest bits, and flags.
const TO_POD: u8 = 0;
const FROM_POD: u8 = 1;
const POLICY: u8 = 2;
const KINDS: u8 = 4;
const LEAVES: u8 = 4;
const FREE_INGRESS: u8 = 4;
const FREE_EGRESS: u8 = 8;
const TRANSLATED: u8 = 8;
const TAGGED: u8 = 16;
const NOT_LINEAR: u8 = 32;

/// The steps that bytes tell. Of what is cut short the rest is missing.
pub(super) fn steps(bytes: &[u8]) -> Vec<Step<'_>> {
    let mut bytes = Bytes(bytes);
    let mut steps = Vec::new();
    while let Some(head) = bytes.byte() {
        steps.push(match head % KINDS {
            TO_POD => Step::ToPod(bytes.sent(head)),
            FROM_POD => {
                let sent = bytes.sent(head);
                let leaves = match head & (LEAVES | TRANSLATED) {
                    LEAVES => Some(sent.clone()),
                    0 | TRANSLATED => None,
                    _ => Some(bytes.sent(head)),
                };
                Step::FromPod(sent, leaves)
            }
            POLICY => Step::Policy(Free {
                ingress: head & FREE_INGRESS != 0,
                egress: head & FREE_EGRESS != 0,
            }),
            _ => Step::Wait(head),
        });
    }
    steps
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A frame behind its length, or all that is left.
    fn sent(&mut self, head: u8) -> Sent<'a> {
        let linear = (head & NOT_LINEAR != 0).then(|| self.byte().unwrap_or(0));
        let length = [self.byte().unwrap_or(0), self.byte().unwrap_or(0)];
        let length = usize::from(u16::from_be_bytes(length)).min(self.0.len());
        let (frame, rest) = self.0.split_at(length);
        self.0 = rest;
        Sent {
            frame,
            linear: linear.map_or(length, |linear| usize::from(linear).min(length)),
            tagged: head & TAGGED != 0,
        }
    }
}

/// The bytes that tell these steps. A length of a linear part is told as far as a byte can.
#[must_use]
pub fn input(steps: &[Step<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in steps {
        match step {
            Step::Wait(seconds) => bytes.push(seconds / KINDS * KINDS + 3),
            Step::Policy(free) => {
                let ingress = if free.ingress { FREE_INGRESS } else { 0 };
                let egress = if free.egress { FREE_EGRESS } else { 0 };
                bytes.push(POLICY | ingress | egress);
            }
            Step::ToPod(sent) => write(&mut bytes, TO_POD, &[sent]),
            Step::FromPod(sent, None) => write(&mut bytes, FROM_POD, &[sent]),
            Step::FromPod(sent, Some(same)) if sent == same => {
                write(&mut bytes, FROM_POD | LEAVES, &[sent]);
            }
            Step::FromPod(sent, Some(other)) => {
                write(&mut bytes, FROM_POD | LEAVES | TRANSLATED, &[sent, other]);
            }
        }
    }
    bytes
}

fn write(bytes: &mut Vec<u8>, head: u8, frames: &[&Sent<'_>]) {
    let flags = |sent: &&Sent<'_>| {
        let tagged = if sent.tagged { TAGGED } else { 0 };
        let whole = sent.linear == sent.frame.len();
        tagged | if whole { 0 } else { NOT_LINEAR }
    };
    let flags = frames.iter().map(flags).fold(0, std::ops::BitOr::bitor);
    bytes.push(head | flags);
    for sent in frames {
        if flags & NOT_LINEAR != 0 {
            bytes.push(sent.linear.min(255) as u8);
        }
        bytes.extend((sent.frame.len() as u16).to_be_bytes());
        bytes.extend(sent.frame);
    }
}
