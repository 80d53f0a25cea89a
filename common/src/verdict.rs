//! Verdicts and their reasons.

/// The way of a packet as seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// To the pod.
    Ingress = 0,
    /// From the pod.
    Egress = 1,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}

/// Why a packet was dropped. The number is the index into `Counters::denied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No rule allows the peer and port.
    Policy = 0,
    /// The connection was open, and policy has withdrawn its permission.
    Revoked = 1,
    /// The source address is not the pod's.
    Spoofed = 2,
    /// The headers cannot be parsed.
    Malformed = 3,
    /// A fragment whose first fragment was not seen.
    Fragment = 4,
    /// Not IPv4, IPv6 or ARP, or VLAN-tagged.
    NotIp = 5,
    /// The interface or its slot is not known.
    Unknown = 6,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Policy,
        Self::Revoked,
        Self::Spoofed,
        Self::Malformed,
        Self::Fragment,
        Self::NotIp,
        Self::Unknown,
    ];

    /// The name used in logs, metrics and `-o json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Revoked => "revoked",
            Self::Spoofed => "spoofed",
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::NotIp => "not-ip",
            Self::Unknown => "unknown",
        }
    }

    /// The reason of that number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() {
            Some(Self::ALL[number as usize])
        } else {
            None
        }
    }
}

/// What becomes of a packet. Turned into a TC action in one place, the programs' entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Other programs on the hook still run.
    Pass,
    /// Dropped.
    Drop,
}
