use super::*;

fn v4() -> Ip {
    Ip::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
}

fn v6() -> Ip {
    Ip::new("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
}

/// A checksum over a range that contains the right checksum is zero.
fn verifies(parts: &[&[u8]]) -> bool {
    checksum(parts) == 0
}

#[test]
fn crc32c_agrees_with_the_published_check_value() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn an_ipv4_header_with_options_sums_to_zero() {
    let header = Ip {
        options: vec![0x94, 4, 0, 0, 1],
        ..v4()
    };
    let packet = header.udp(1, 2, b"data");
    assert_eq!(packet[0], 0x47);
    assert!(verifies(&[&packet[..28]]));
    assert!(!verifies(&[&packet[..20]]));
}

#[test]
fn transport_checksums_cover_the_pseudo_header() {
    let segment = Tcp {
        data: b"odd".to_vec(),
        ..Tcp::new(1, 2, Tcp::SYN)
    };
    let packet = v4().tcp(&segment);
    let length = 23_u16.to_be_bytes();
    assert!(verifies(&[
        &packet[12..20],
        &[0, 6],
        &length,
        &packet[20..]
    ]));
    let packet = v6().tcp(&segment);
    assert!(verifies(&[&packet[8..40], &length, &[0, 6], &packet[40..]]));
    let packet = v6().echo_request(7, 1, b"x");
    assert!(verifies(&[
        &packet[8..40],
        &9_u16.to_be_bytes(),
        &[0, 58],
        &packet[40..]
    ]));
}

#[test]
fn what_is_made_is_read_back() {
    for header in [v4(), v6()] {
        let frame = ethernet([2; 6], [4; 6], &header.udp(1000, 53, b"hello"));
        for frame in [tagged(&frame, 5), frame] {
            let seen = parse(&frame).unwrap();
            assert_eq!(seen.source, header.source);
            assert_eq!(seen.destination, header.destination);
            assert_eq!(seen.ports(), Some((1000, 53)));
            assert_eq!(&seen.payload[8..], b"hello");
        }
    }
}

#[test]
fn extension_headers_are_chained_in_order() {
    let header = Ip {
        extensions: vec![Extension::padding(0), Extension::padding(60)],
        ..v6()
    };
    let packet = header.udp(1, 2, b"");
    assert_eq!((packet[6], packet[40], packet[48]), (0, 60, 17));
    assert_eq!(
        parse(&ethernet([0; 6], [0; 6], &packet)).unwrap().protocol,
        17
    );
}

#[test]
fn pieces_of_a_datagram_add_up() {
    for header in [v4(), v6()] {
        let whole = header.udp_payload(1, 2, &[7; 100]);
        let packets = header.fragments(9, 17, &whole, 48);
        let seen: Vec<_> = packets
            .iter()
            .map(|packet| parse(&ethernet([0; 6], [0; 6], packet)).unwrap())
            .collect();
        assert_eq!(
            seen.iter().map(|seen| seen.offset).collect::<Vec<_>>(),
            [0, 48, 96]
        );
        assert_eq!(seen[0].ports(), Some((1, 2)));
        assert_eq!(seen[1].ports(), None);
        let joined: Vec<u8> = seen.into_iter().flat_map(|seen| seen.payload).collect();
        assert_eq!(joined, whole);
    }
}

#[test]
fn an_association_is_opened_with_tags() {
    let init = Sctp::opening(Sctp::INIT, 1, 80, 0, 0xabcd);
    let bytes = v4().sctp(&init);
    let read = Sctp::parse(&bytes[20..]).unwrap();
    assert_eq!(read, init);
    assert_eq!(read.own_tag(), Some(0xabcd));
}
