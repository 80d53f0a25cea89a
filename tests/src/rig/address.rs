//! Addresses as the maps hold them.

use std::net::IpAddr;

use palisade_common::Address;

/// An address as maps hold it.
#[must_use]
pub fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()), 0, 0, 0],
        IpAddr::V6(v6) => {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
                *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            words
        }
    }
}
