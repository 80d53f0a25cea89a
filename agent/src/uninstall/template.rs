//! The pods of the agents' DaemonSet, and what is to change in them so that they remove.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// What turns an agent's command line into one that removes.
pub(super) const MODE: &str = "--uninstall";
/// The agent's container, as the chart names it.
const CONTAINER: &str = "agent";
/// To write where root may not.
const OVERRIDE: &str = "DAC_OVERRIDE";

/// What is to change in a DaemonSet: its one container removes, nothing is prepared before it, and all pods are
/// replaced at once. What an init container had to override to write, the container has to override to remove.
pub(super) fn uninstalling(set: &Value) -> anyhow::Result<Value> {
    let containers = set["spec"]["template"]["spec"]["containers"].as_array();
    let mut containers = containers.into_iter().flatten();
    let agent = containers.find(|container| container["name"] == CONTAINER);
    let mut agent = agent
        .with_context(|| format!("it has no container {CONTAINER}"))?
        .clone();
    let mut arguments = agent["args"].as_array().cloned().unwrap_or_default();
    if arguments.first().is_none_or(|command| command != "agent") {
        bail!("its container {CONTAINER} does not run `palisade agent`");
    }
    if !arguments.iter().any(|argument| argument == MODE) {
        arguments.push(MODE.into());
    }
    agent["args"] = arguments.into();
    let preparing = set["spec"]["template"]["spec"]["initContainers"].as_array();
    if preparing.into_iter().flatten().any(overrides) && !overrides(&agent) {
        let added = &mut agent["securityContext"]["capabilities"]["add"];
        let mut capabilities = added.as_array().cloned().unwrap_or_default();
        capabilities.push(OVERRIDE.into());
        *added = capabilities.into();
    }
    Ok(json!({
        "spec": {
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": { "maxUnavailable": "100%", "maxSurge": 0 },
            },
            "template": { "spec": { "initContainers": null, "containers": [agent] } },
        },
    }))
}

/// Whether a container may write where root may not.
fn overrides(container: &Value) -> bool {
    let added = container["securityContext"]["capabilities"]["add"].as_array();
    added.is_some_and(|added| added.iter().any(|capability| capability == OVERRIDE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Value {
        json!({
            "spec": {
                "template": { "spec": {
                    "initContainers": [{ "name": "mount" }],
                    "containers": [
                        { "name": "other" },
                        { "name": "agent", "image": "i", "args": ["agent", "--http=1"] },
                    ],
                } },
            },
        })
    }

    #[test]
    fn only_the_agent_stays_and_it_removes() -> anyhow::Result<()> {
        let patch = uninstalling(&set())?;
        let spec = &patch["spec"]["template"]["spec"];
        assert_eq!(spec["initContainers"], Value::Null);
        let agent = json!({
            "name": "agent", "image": "i", "args": ["agent", "--http=1", "--uninstall"],
        });
        assert_eq!(spec["containers"], json!([agent]));
        // Said twice it is no usage.
        let mut switched = set();
        switched["spec"]["template"]["spec"]["containers"] = json!([agent]);
        assert_eq!(uninstalling(&switched)?, patch);
        Ok(())
    }

    #[test]
    fn what_runs_no_agent_is_refused() {
        let mut other = set();
        other["spec"]["template"]["spec"]["containers"][1]["args"] = json!(["check"]);
        assert!(uninstalling(&other).is_err());
        assert!(uninstalling(&json!({})).is_err());
    }

    #[test]
    fn what_overrode_permissions_to_write_does_so_to_remove() -> anyhow::Result<()> {
        let mut set = set();
        let pod = &mut set["spec"]["template"]["spec"];
        pod["initContainers"] = json!([
            { "securityContext": { "capabilities": { "add": ["DAC_OVERRIDE"] } } },
        ]);
        pod["containers"][1]["securityContext"]["capabilities"] = json!({ "add": ["BPF"] });
        let patch = uninstalling(&set)?;
        let agent = &patch["spec"]["template"]["spec"]["containers"][0];
        let capabilities = &agent["securityContext"]["capabilities"];
        assert_eq!(capabilities, &json!({ "add": ["BPF", "DAC_OVERRIDE"] }));
        Ok(())
    }
}
