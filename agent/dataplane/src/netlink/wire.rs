//! Messages as bytes: the headers of `include/uapi/linux/{netlink,rtnetlink}.h`, all in host order.

use std::ffi::CStr;

use netlink_packet_core::{NLA_F_NESTED, NlasIterator};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub(super) struct MessageHeader {
    pub(super) length: u32,
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
}

/// Bytes of a [`MessageHeader`].
pub(super) const MESSAGE_HEADER: usize = size_of::<MessageHeader>();

/// `struct ifinfomsg`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub(super) struct LinkHeader {
    pub(super) family: u8,
    pub(super) padding: u8,
    pub(super) link_type: u16,
    pub(super) index: i32,
    pub(super) flags: u32,
    pub(super) change: u32,
}

/// `struct ifaddrmsg`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub(super) struct AddressHeader {
    pub(super) family: u8,
    pub(super) prefix_length: u8,
    pub(super) flags: u8,
    pub(super) scope: u8,
    pub(super) index: u32,
}

/// `struct rtmsg`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub(super) struct RouteHeader {
    pub(super) family: u8,
    pub(super) destination_length: u8,
    pub(super) source_length: u8,
    pub(super) tos: u8,
    pub(super) table: u8,
    pub(super) protocol: u8,
    pub(super) scope: u8,
    pub(super) kind: u8,
    pub(super) flags: u32,
}

/// `struct tcmsg`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub(super) struct TcHeader {
    pub(super) family: u8,
    pub(super) padding: [u8; 3],
    pub(super) ifindex: i32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    pub(super) info: u32,
}

/// A message being written.
#[derive(Clone)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message with the header of its family.
    pub(super) fn new(
        kind: u16,
        flags: u16,
        header: &(impl IntoBytes + Immutable + ?Sized),
    ) -> Self {
        let message = MessageHeader {
            kind,
            flags,
            ..MessageHeader::default()
        };
        let mut bytes = message.as_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        Self { bytes }
    }

    /// Appends an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends an attribute made of attributes.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attribute(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// The bytes to send.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

const ATTRIBUTE_HEADER: usize = 4;

/// The messages of one datagram, each with its payload; `None` for one that is cut short.
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Option<(MessageHeader, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = (|| {
            let (header, _) = MessageHeader::read_from_prefix(self.rest).ok()?;
            let length = header.length as usize;
            let payload = self.rest.get(MESSAGE_HEADER..length)?;
            Some((header, length, payload))
        })();
        let Some((header, length, payload)) = message else {
            self.rest = &[];
            return Some(None);
        };
        self.rest = self
            .rest
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(Some((header, payload)))
    }
}

/// The attributes of a message, up to the first that is cut short.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Each with its kind, in order.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, Value<'a>)> {
        NlasIterator::new(self.bytes)
            .map_while(Result::ok)
            .map(|attribute| {
                let length = usize::from(attribute.length());
                let value = &attribute.into_inner()[ATTRIBUTE_HEADER..length];
                (attribute.kind(), Value(value))
            })
    }

    /// The value of the first attribute of a kind.
    pub(super) fn find(self, kind: u16) -> Option<Value<'a>> {
        let mut all = self.iter();
        all.find(|(other, _)| *other == kind)
            .map(|(_, value)| value)
    }

    /// A 32-bit number.
    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.u32()
    }

    /// A text.
    pub(super) fn text(self, kind: u16) -> Option<String> {
        self.find(kind).map(Value::text)
    }
}

/// The value of an attribute.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(pub(super) &'a [u8]);

impl<'a> Value<'a> {
    /// As a 32-bit number.
    pub(super) fn u32(self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.0.try_into().ok()?))
    }

    /// As text, up to its NUL.
    pub(super) fn text(self) -> String {
        let text = CStr::from_bytes_until_nul(self.0).map_or(self.0, CStr::to_bytes);
        String::from_utf8_lossy(text).into_owned()
    }

    /// As attributes.
    pub(super) fn nested(self) -> Attributes<'a> {
        Attributes::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_message_is_read_back() {
        let mut request = Request::new(7, 1, &AddressHeader::default());
        request.attribute(3, b"veth0\0");
        request.nested(9, |inner| inner.attribute(1, &5u32.to_ne_bytes()));
        let bytes = request.finish(42);
        assert_eq!(bytes.len() % 4, 0);
        let messages: Vec<_> = Messages::new(&bytes).map(Option::unwrap).collect();
        let [(header, payload)] = messages[..] else {
            panic!("{} messages", messages.len());
        };
        assert_eq!((header.kind, header.sequence), (7, 42));
        let attributes = Attributes::new(&payload[size_of::<AddressHeader>()..]);
        assert_eq!(attributes.text(3).as_deref(), Some("veth0"));
        let nested = attributes.find(9).unwrap().nested();
        assert_eq!(nested.u32(1), Some(5));
        assert_eq!(nested.u32(2), None);
    }

    #[test]
    fn a_truncated_message_is_noticed_and_ends_the_datagram() {
        let bytes = Request::new(7, 1, &LinkHeader::default()).finish(1);
        for cut in 1..bytes.len() {
            let messages: Vec<_> = Messages::new(&bytes[..cut]).collect();
            assert!(matches!(messages[..], [None]), "cut at {cut}");
        }
    }

    #[test]
    fn lengths_that_lie_do_not_panic() {
        let mut bytes = Request::new(7, 1, &LinkHeader::default()).finish(1);
        for length in [0u32, 3, 15, 17, u32::MAX] {
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(matches!(Messages::new(&bytes).next(), Some(None)) || length == 17);
        }
        for attribute in [[0u8, 0, 1, 0], [3, 0, 1, 0], [255, 255, 1, 0]] {
            assert!(Attributes::new(&attribute).find(1).is_none());
        }
    }
}
