//! A question: who sends, to whom, at which port.

use std::{fmt, net::IpAddr, str::FromStr};

use palisade_policy::model::{Name, Protocol};
use serde::{Deserialize, Serialize};

use crate::source::convert::address::address;

/// A question, as the command line and the API put it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Query {
    /// Who sends: `NAMESPACE/POD` or an address.
    pub from: End,
    /// To whom; `service/NAMESPACE/NAME` is a Service.
    pub to: End,
    /// Which destination port: `PORT/PROTOCOL`, or `PORT` of TCP; absent for everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
}

/// A pod, an address or a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum End {
    /// A pod.
    Pod(Name),
    /// An address.
    Address(IpAddr),
    /// A Service: wherever it leads.
    Service(Name),
}

/// A destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A text that is no [`End`] or no [`Port`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("expected {0}")]
pub struct Malformed(&'static str);

impl FromStr for End {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if let Some(address) = address(text) {
            return Ok(Self::Address(address));
        }
        // As kubectl abbreviates it.
        let kinds = ["service/", "svc/", "services/"];
        let name = kinds.iter().find_map(|kind| text.strip_prefix(kind));
        if let Some((namespace, name)) = name.and_then(|name| name.split_once('/')) {
            return match namespace.is_empty() || name.is_empty() || name.contains('/') {
                true => Err(Malformed("service/NAMESPACE/NAME")),
                false => Ok(Self::Service(Name::new(namespace, name))),
            };
        }
        match text.split_once('/') {
            // A namespace's name is a DNS label: with a dot it is a mistaken CIDR.
            Some((namespace, pod))
                if !namespace.is_empty()
                    && !namespace.contains('.')
                    && !pod.is_empty()
                    && !pod.contains('/') =>
            {
                Ok(Self::Pod(Name::new(namespace, pod)))
            }
            _ => Err(Malformed(
                "NAMESPACE/POD, an IP address or service/NAMESPACE/NAME",
            )),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Service(name) => write!(f, "service/{name}"),
        }
    }
}

impl FromStr for Port {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = Malformed("PORT/PROTOCOL, as 80/TCP");
        let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
        let protocol = Protocol::ALL
            .into_iter()
            .find(|known| known.to_string().eq_ignore_ascii_case(protocol));
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        match (number.parse(), protocol) {
            (Ok(number @ 1..), Some(protocol)) if digits => Ok(Self { number, protocol }),
            _ => Err(malformed),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// Serde speaks of these types as of their texts.
macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = Malformed;

            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
as_text!(End);
as_text!(Port);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_pods_or_addresses() {
        assert_eq!(
            "a/b".parse::<End>().ok(),
            Some(End::Pod(Name::new("a", "b")))
        );
        for address in ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            assert_eq!(
                address.parse::<End>().ok(),
                address.parse().ok().map(End::Address)
            );
        }
        for service in ["service/a/b", "svc/a/b", "services/a/b"] {
            let end = service.parse::<End>().ok();
            assert_eq!(end, Some(End::Service(Name::new("a", "b"))));
        }
        // A namespace may be called so.
        assert_eq!(
            "service/b".parse::<End>().ok(),
            Some(End::Pod(Name::new("service", "b")))
        );
        for neither in [
            "svc/a/",
            "svc//b",
            "svc/a/b/c",
            "pod/a/b",
            "",
            "a",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "10.0.0.1/8",
            "10.0.0",
        ] {
            assert!(neither.parse::<End>().is_err(), "{neither}");
        }
    }

    #[test]
    fn ports_have_a_protocol() {
        for (text, number, protocol) in [
            ("80", 80, Protocol::Tcp),
            ("80/TCP", 80, Protocol::Tcp),
            ("53/udp", 53, Protocol::Udp),
            ("65535/Sctp", 65535, Protocol::Sctp),
        ] {
            assert_eq!(
                text.parse::<Port>().ok(),
                Some(Port { number, protocol }),
                "{text}"
            );
        }
        for wrong in [
            "", "0", "65536", "http", "80/", "/TCP", "80/ICMP", "80/TCP/x", "-1", "+80",
        ] {
            assert!(wrong.parse::<Port>().is_err(), "{wrong}");
        }
    }
}
