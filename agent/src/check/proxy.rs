//! Which kube-proxy translates Services, as the node shows it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{Finding, Severity, enforcers::Traces};

const NAME: &str = "kube-proxy";
/// Where kube-proxy tells its mode, unless it is told not to.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 10249);
const PATIENCE: Duration = Duration::from_secs(1);

/// From traces; `ask` asks kube-proxy itself.
pub(super) fn check(traces: &Traces, ask: impl FnOnce() -> Option<String>) -> Finding {
    let found = |mode: &str| Finding::new(NAME, Severity::Ok, mode);
    match traces.proxy().map(str::to_owned).or_else(ask) {
        Some(mode) => found(&mode),
        None if traces.legacy => found("none seen, but for legacy iptables, which is not read"),
        None => found("none seen"),
    }
}

/// What kube-proxy says at `/proxyMode`.
pub(super) fn ask() -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(METRICS), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /proxyMode HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).ok()?;
    parse(&answer)
}

fn parse(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let ok = head.split(' ').nth(1) == Some("200");
    let word = body.trim();
    let plain = !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphanumeric());
    (ok && plain).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_shows_comes_before_what_is_said() {
        let mut traces = Traces::default();
        let message =
            |traces: &Traces, said: Option<&str>| check(traces, || said.map(str::to_owned)).message;
        assert_eq!(message(&traces, None), "none seen");
        assert_eq!(message(&traces, Some("ipvs")), "ipvs");
        traces.tables.push("kube-proxy".to_owned());
        assert_eq!(message(&traces, Some("ipvs")), "nftables");
        traces = Traces {
            legacy: true,
            ..Traces::default()
        };
        assert!(message(&traces, None).contains("legacy"));
    }

    #[test]
    fn only_a_mode_is_taken_for_one() {
        assert_eq!(
            parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\niptables\n"),
            Some("iptables".to_owned())
        );
        assert_eq!(parse("HTTP/1.0 404 Not Found\r\n\r\nno\n"), None);
        assert_eq!(parse("HTTP/1.0 200 OK\r\n\r\n<html> </html>"), None);
        assert_eq!(parse("x"), None);
    }
}
