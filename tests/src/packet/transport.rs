//! TCP segments and SCTP packets.

/// A TCP segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flags: an or of [`Tcp::FIN`] and its siblings.
    pub flags: u8,
    /// Options, padded with zeros to whole words.
    pub options: Vec<u8>,
    /// Data.
    pub data: Vec<u8>,
}

impl Tcp {
    /// No more data follows.
    pub const FIN: u8 = 1;
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// Ends it at once.
    pub const RST: u8 = 4;
    /// Hand data over now.
    pub const PSH: u8 = 8;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;

    /// A segment with these flags and nothing else.
    #[must_use]
    pub fn new(source: u16, destination: u16, flags: u8) -> Self {
        Self {
            source,
            destination,
            flags,
            ..Self::default()
        }
    }

    /// Its bytes, the checksum still zero.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = [self.source.to_be_bytes(), self.destination.to_be_bytes()].concat();
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgement.to_be_bytes());
        bytes.extend([((5 + options.len() / 4) << 4) as u8, self.flags]);
        bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(options);
        bytes.extend(&self.data);
        bytes
    }
}

/// An SCTP packet of one chunk (RFC 9260).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sctp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Verification tag: the receiver's, zero with INIT.
    pub tag: u32,
    /// Type of the chunk.
    pub chunk: u8,
    /// What follows the chunk's header.
    pub body: Vec<u8>,
}

impl Sctp {
    /// Data.
    pub const DATA: u8 = 0;
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// Answers INIT.
    pub const INIT_ACK: u8 = 2;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;

    /// INIT, or with [`Self::INIT_ACK`] its answer; `own` is the sender's tag.
    #[must_use]
    pub fn opening(chunk: u8, source: u16, destination: u16, tag: u32, own: u32) -> Self {
        let mut body = own.to_be_bytes().to_vec();
        body.extend(0xffff_u32.to_be_bytes());
        body.extend([0, 1, 0, 1]);
        body.extend(own.to_be_bytes());
        if chunk == Self::INIT_ACK {
            // The mandatory state cookie.
            body.extend([0, 7, 0, 8, 1, 2, 3, 4]);
        }
        Self {
            source,
            destination,
            tag,
            chunk,
            body,
        }
    }

    /// Its bytes, checksum included.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.source.to_be_bytes(), self.destination.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.chunk, 0]);
        bytes.extend((4 + self.body.len() as u16).to_be_bytes());
        bytes.extend(&self.body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let sum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&sum);
        bytes
    }

    /// Reads a packet's common header and first chunk.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let ports = word(0)?;
        Some(Self {
            source: (ports >> 16) as u16,
            destination: ports as u16,
            tag: word(4)?,
            chunk: *bytes.get(12)?,
            body: bytes.get(16..)?.to_vec(),
        })
    }

    /// The sender's own tag, of a packet that opens an association.
    #[must_use]
    pub fn own_tag(&self) -> Option<u32> {
        let tag = self.body.get(..4)?.try_into().ok()?;
        Some(u32::from_be_bytes(tag))
    }
}

/// CRC32c, the checksum of SCTP (RFC 9260, appendix A).
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}
