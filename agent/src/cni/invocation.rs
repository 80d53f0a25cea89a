//! What a runtime tells a plugin: a few variables, and a document on standard input.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde_json::Value;

use super::Attachment;

/// The interface of the cluster's network; runtimes give further ones other names.
const INTERFACE: &str = "eth0";
/// For how long ADD waits at most where the entry does not say. While it waits a write in the folder of lists keeps the
/// runtime from starting anything, and after 40 s the node would not be ready.
const WAIT: Duration = Duration::from_secs(10);
const LONGEST: u64 = 30;

/// A failure as a runtime expects it: the codes are the specification's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u32,
    pub(super) message: &'static str,
    pub(super) details: String,
}

impl Failure {
    pub(super) fn environment(details: impl Into<String>) -> Self {
        Self {
            code: 4,
            message: "invalid environment variables",
            details: details.into(),
        }
    }

    pub(super) fn io(details: impl Into<String>) -> Self {
        Self {
            code: 5,
            message: "I/O failure",
            details: details.into(),
        }
    }

    pub(super) fn configuration(details: impl Into<String>) -> Self {
        Self {
            code: 7,
            message: "invalid network configuration",
            details: details.into(),
        }
    }

    pub(super) fn again(details: impl Into<String>) -> Self {
        Self {
            code: 11,
            message: "try again later",
            details: details.into(),
        }
    }
}

/// What becomes of a pod whose policies are not in force in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnTimeout {
    /// It does not start; the kubelet tries again.
    Deny,
    /// It starts, and `status` names it.
    Allow,
}

/// What the runtime tells.
#[derive(Debug)]
pub(super) struct Invocation {
    variables: BTreeMap<&'static str, String>,
    configuration: Value,
}

impl Invocation {
    /// From the environment and the text of standard input. What cannot be read is missed where it is needed.
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>, input: &[u8]) -> Self {
        let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
        let variables = names
            .into_iter()
            .filter_map(|name| Some((name, variable(name).filter(|value| !value.is_empty())?)));
        Self {
            variables: variables.collect(),
            configuration: serde_json::from_slice(input).unwrap_or_default(),
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The version that the runtime speaks, and that the answer has to name.
    pub(super) fn version(&self) -> &str {
        self.configuration["cniVersion"].as_str().unwrap_or("0.1.0")
    }

    /// The sandbox. It becomes the name of a file.
    pub(super) fn container(&self) -> Result<&str, Failure> {
        let id = self
            .variable("CNI_CONTAINERID")
            .ok_or_else(|| Failure::environment("CNI_CONTAINERID is missing"))?;
        let begins = id.starts_with(|first: char| first.is_ascii_alphanumeric());
        let plain = |other: char| other.is_ascii_alphanumeric() || "_.-".contains(other);
        if begins && id.len() < 200 && id.chars().all(plain) {
            Ok(id)
        } else {
            Err(Failure::environment(format!(
                "CNI_CONTAINERID is no identifier: {id}"
            )))
        }
    }

    /// The sandboxes that there are, told with GC.
    pub(super) fn valid(&self) -> Option<Vec<&str>> {
        let valid = self.configuration["cni.dev/valid-attachments"].as_array()?;
        let ids = valid.iter().map(|one| one["containerID"].as_str());
        ids.collect()
    }

    /// What the plugins before made, in the form that the version asks for: it is passed on as it came.
    pub(super) fn result(&self) -> Result<Value, Failure> {
        let mut result = self.configuration["prevResult"].clone();
        let Some(fields) = result.as_object_mut() else {
            return Err(Failure::configuration(
                "there is no prevResult: palisade comes after the plugin that makes the interface",
            ));
        };
        fields.insert("cniVersion".to_owned(), self.version().into());
        Ok(result)
    }

    /// The pod, if it is one, and this its network in the cluster.
    pub(super) fn attachment(&self) -> Result<Option<Attachment>, Failure> {
        let arguments = self.variable("CNI_ARGS").unwrap_or_default();
        let argument = |name: &str| {
            let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let pod = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME"));
        let (Some(namespace), Some(pod)) = pod else {
            return Ok(None);
        };
        if self.variable("CNI_IFNAME") != Some(INTERFACE) {
            return Ok(None);
        }
        let netns = self
            .variable("CNI_NETNS")
            .ok_or_else(|| Failure::environment("CNI_NETNS is missing"))?;
        Ok(Some(Attachment {
            container: self.container()?.to_owned(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: argument("K8S_POD_UID").unwrap_or_default().to_owned(),
            addresses: self.addresses()?,
            netns: PathBuf::from(netns),
        }))
    }

    /// The addresses of the interface asked for. An address that names no interface is meant for that one too.
    fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let result = &self.configuration["prevResult"];
        let interfaces = result["interfaces"].as_array();
        let mine = |index: &Value| {
            let interface = index.as_u64().and_then(|index| {
                let index = usize::try_from(index).ok()?;
                interfaces?.get(index)
            });
            interface.is_none_or(|interface| {
                interface["name"].as_str() == Some(INTERFACE)
                    && interface["sandbox"]
                        .as_str()
                        .is_some_and(|sandbox| !sandbox.is_empty())
            })
        };
        let mut addresses = Vec::new();
        for ip in result["ips"].as_array().into_iter().flatten() {
            if mine(&ip["interface"]) {
                let text = ip["address"].as_str().unwrap_or_default();
                let address: IpNet = text.parse().map_err(|_error| {
                    Failure::configuration(format!("prevResult: {text:?} is no address"))
                })?;
                // Of each family the first is the pod's.
                let address = address.addr();
                if !addresses
                    .iter()
                    .any(|other: &IpAddr| other.is_ipv4() == address.is_ipv4())
                {
                    addresses.push(address);
                }
            }
        }
        if addresses.is_empty() {
            return Err(Failure::configuration("prevResult gives eth0 no address"));
        }
        Ok(addresses)
    }

    /// For how long ADD waits at most: `waitSeconds` of the entry.
    pub(super) fn wait(&self) -> Result<Duration, Failure> {
        let seconds = &self.configuration["waitSeconds"];
        match seconds.as_u64() {
            _ if seconds.is_null() => Ok(WAIT),
            Some(seconds) if (1..=LONGEST).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            _ => Err(Failure::configuration(format!(
                "waitSeconds is {seconds}, not 1 to {LONGEST}"
            ))),
        }
    }

    /// `onTimeout` of the entry.
    pub(super) fn on_timeout(&self) -> Result<OnTimeout, Failure> {
        match &self.configuration["onTimeout"] {
            Value::Null => Ok(OnTimeout::Deny),
            value if value == "deny" => Ok(OnTimeout::Deny),
            value if value == "allow" => Ok(OnTimeout::Allow),
            value => Err(Failure::configuration(format!(
                "onTimeout is {value}, not deny or allow"
            ))),
        }
    }

    /// Where plugin and agent meet: `folder` of the entry.
    pub(super) fn folder(&self) -> PathBuf {
        let folder = self.configuration["folder"].as_str();
        PathBuf::from(folder.unwrap_or(super::FOLDER))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As containerd runs a plugin after ptp.
    fn invocation(change: impl FnOnce(&mut BTreeMap<&str, &str>, &mut Value)) -> Invocation {
        let mut variables = BTreeMap::from([
            ("CNI_CONTAINERID", "0a1b2c"),
            ("CNI_NETNS", "/var/run/netns/cni-1"),
            ("CNI_IFNAME", "eth0"),
            (
                "CNI_ARGS",
                "K8S_POD_INFRA_CONTAINER_ID=0a1b2c;K8S_POD_UID=11-22;IgnoreUnknown=1;\
                 K8S_POD_NAMESPACE=x;K8S_POD_NAME=a",
            ),
        ]);
        let mut configuration = json!({
            "cniVersion": "1.0.0",
            "name": "cluster",
            "type": "palisade",
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [
                    { "name": "veth1", "mac": "02:00:00:00:00:01" },
                    { "name": "eth0", "sandbox": "/var/run/netns/cni-1" },
                    { "name": "net1", "sandbox": "/var/run/netns/cni-1" },
                ],
                "ips": [
                    { "address": "10.0.0.7/24", "interface": 1, "gateway": "10.0.0.1" },
                    { "address": "fd00::7/64" },
                    { "address": "192.0.2.1/24", "interface": 2 },
                ],
                "dns": {},
                "unknown": { "kept": true },
            },
        });
        change(&mut variables, &mut configuration);
        let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        Invocation::new(variable, configuration.to_string().as_bytes())
    }

    #[test]
    fn a_pod_has_the_addresses_of_its_interface_in_the_cluster() {
        let attachment = invocation(|_, _| {}).attachment().expect("it is whole");
        assert_eq!(
            attachment,
            Some(Attachment {
                container: "0a1b2c".to_owned(),
                namespace: "x".to_owned(),
                pod: "a".to_owned(),
                uid: "11-22".to_owned(),
                addresses: ["10.0.0.7", "fd00::7"].map(|it| it.parse().unwrap()).into(),
                netns: "/var/run/netns/cni-1".into(),
            })
        );
    }

    #[test]
    fn what_the_plugins_before_made_is_passed_on_with_all_it_has() {
        let told = invocation(|_, configuration| {
            configuration["prevResult"]["cniVersion"] = Value::Null;
        });
        let result = told.result().expect("there is one");
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(result["unknown"]["kept"], true);
        let first = invocation(|_, configuration| configuration["prevResult"] = Value::Null);
        assert_eq!(first.result().unwrap_err().code, 7);
    }

    #[test]
    fn what_is_no_pod_or_a_further_interface_is_not_held() {
        let other = invocation(|variables, _| {
            variables.insert("CNI_ARGS", "IgnoreUnknown=1");
        });
        assert_eq!(other.attachment(), Ok(None));
        let further = invocation(|variables, _| {
            variables.insert("CNI_IFNAME", "net1");
        });
        assert_eq!(further.attachment(), Ok(None));
    }

    #[test]
    fn a_pod_of_which_something_is_missing_is_refused() {
        let bare = invocation(|_, configuration| configuration["prevResult"]["ips"] = json!([]));
        assert_eq!(bare.attachment().unwrap_err().code, 7);
        let wrong = invocation(|_, configuration| {
            configuration["prevResult"]["ips"][0]["address"] = "10.0.0.300/24".into();
        });
        assert_eq!(wrong.attachment().unwrap_err().code, 7);
        let nowhere = invocation(|variables, _| {
            variables.remove("CNI_NETNS");
        });
        assert_eq!(nowhere.attachment().unwrap_err().code, 4);
    }

    #[test]
    fn a_container_that_is_no_plain_word_is_refused() {
        for id in ["", "../a", "a/b", ".hidden", "-", "a b"] {
            let told = invocation(|variables, _| {
                variables.insert("CNI_CONTAINERID", id);
            });
            assert_eq!(told.container().unwrap_err().code, 4, "{id:?}");
        }
    }

    #[test]
    fn settings_that_are_not_understood_are_refused() {
        let told = invocation(|_, _| {});
        assert_eq!(told.wait(), Ok(WAIT));
        assert_eq!(told.on_timeout(), Ok(OnTimeout::Deny));
        let other = invocation(|_, configuration| {
            configuration["waitSeconds"] = json!(3);
            configuration["onTimeout"] = json!("allow");
        });
        assert_eq!(other.wait(), Ok(Duration::from_secs(3)));
        assert_eq!(other.on_timeout(), Ok(OnTimeout::Allow));
        for seconds in [json!(0), json!(31), json!("10"), json!(-1), json!(1.5)] {
            let wrong =
                invocation(|_, configuration| configuration["waitSeconds"] = seconds.clone());
            assert_eq!(wrong.wait().unwrap_err().code, 7, "{seconds}");
        }
        let wrong = invocation(|_, configuration| configuration["onTimeout"] = json!("Deny"));
        assert_eq!(wrong.on_timeout().unwrap_err().code, 7);
    }

    #[test]
    fn garbage_is_no_configuration() {
        let told = Invocation::new(|_| None, b"{\"cniVersion\":");
        assert_eq!(told.version(), "0.1.0");
        assert_eq!(told.valid(), None);
        assert_eq!(told.result().unwrap_err().code, 7);
    }

    #[test]
    fn gc_tells_the_sandboxes_that_there_are() {
        let told = invocation(|_, configuration| {
            configuration["cni.dev/valid-attachments"] =
                json!([{ "containerID": "a", "ifname": "eth0" }, { "containerID": "b" }]);
        });
        assert_eq!(told.valid(), Some(vec!["a", "b"]));
        // One that cannot be read may be any.
        let wrong = invocation(|_, configuration| {
            configuration["cni.dev/valid-attachments"] = json!([{ "containerID": 7 }]);
        });
        assert_eq!(wrong.valid(), None);
    }
}
