//! Addresses and blocks as the API server reads them.
//!
//! Stored objects may hold what newer validation refuses: `ipBlock` and addresses are read with
//! `k8s.io/utils/net` `ParseCIDRSloppy` and `ParseIPSloppy`, which take leading zeros as decimal. Only
//! there `::ffff:1.2.3.4` becomes IPv4; here it is the IPv6 address that it spells, for that is what
//! a packet would carry.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// Reads an address.
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        v6(text).map(IpAddr::V6)
    } else {
        v4(text).map(IpAddr::V4)
    }
}

/// Reads `address/length`. Host bits are masked away.
#[must_use]
pub fn cidr(text: &str) -> Option<IpNet> {
    let (network, length) = text.split_once('/')?;
    let length = decimal(length, 128)?;
    IpNet::new(address(network)?, u8::try_from(length).ok()?)
        .ok()
        .map(|net| net.trunc())
}

/// Decimal digits alone, however many zeros lead.
fn decimal(text: &str, most: u32) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.bytes().try_fold(0, |number, digit| {
        let number = number * 10 + char::from(digit).to_digit(10)?;
        (number <= most).then_some(number)
    })
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?, 255)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn v6(text: &str) -> Option<Ipv6Addr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let groups = text
        .split(':')
        .map(|group| {
            if group.contains('.') {
                return v4(group).map(|v4| Cow::Owned(v4.to_string()));
            }
            let significant = group.trim_start_matches('0');
            let zero = significant.is_empty() && !group.is_empty();
            Some(Cow::Borrowed(if zero { "0" } else { significant }))
        })
        .collect::<Option<Vec<_>>>()?;
    groups.join(":").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str, expected: &str) {
        let expected = if expected.is_empty() {
            None
        } else {
            Some(expected.parse().unwrap())
        };
        assert_eq!(cidr(text), expected, "{text}");
    }

    #[test]
    fn host_bits_are_masked() {
        reads("10.1.2.3/8", "10.0.0.0/8");
        reads("10.1.2.3/0", "0.0.0.0/0");
        reads("fd00::1/64", "fd00::/64");
    }

    #[test]
    fn leading_zeros_are_decimal() {
        reads("010.001.0000.08/024", "10.1.0.0/24");
        reads("00fd::0000001/0128", "fd::1/128");
        assert_eq!(address("::ffff:010.0.0.09"), "::ffff:a00:9".parse().ok());
    }

    #[test]
    fn a_mapped_address_is_ipv6() {
        reads("::ffff:1.2.3.4/120", "::ffff:1.2.3.0/120");
        assert!(address("::ffff:1.2.3.4").is_some_and(|address| address.is_ipv6()));
    }

    #[test]
    fn nonsense_is_no_block() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.256/8",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "fe80::1%eth0/64",
            "10.0.0.0.0/8",
            "10..0.0/8",
            ":/0",
            ":::/0",
            "1::2::3/9",
            "::00000g/1",
            "a.b.c.d/8",
            "１.0.0.0/8",
            "10.0.0.0/99999999999999999999",
            "::1.2.3/8",
        ] {
            reads(text, "");
        }
    }
}
