//! Network plugins, called as a runtime calls them.

use std::{
    io::Write as _,
    net::IpAddr,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::lab::{Namespace, Pod};

/// What a runtime says.
#[derive(Debug)]
pub struct Call<'a> {
    /// ADD, DEL and the like.
    pub command: &'a str,
    /// The sandbox.
    pub container: &'a str,
    /// `CNI_ARGS`.
    pub arguments: &'a str,
    /// What standard input has.
    pub configuration: &'a Value,
}

/// A plugin under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    since: Instant,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// Whether it succeeded.
    pub success: bool,
    /// What it printed; null if nothing.
    pub answer: Value,
    /// How long it took.
    pub took: Duration,
}

impl Call<'_> {
    /// Starts the plugin on a node, for a pod.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&self, program: &Path, node: &Namespace, pod: &Pod) -> Result<Running> {
        let since = Instant::now();
        let mut child = node
            .command(program)
            .env("CNI_COMMAND", self.command)
            .env("CNI_CONTAINERID", self.container)
            .env("CNI_NETNS", pod.endpoint.namespace.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", self.arguments)
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut input = child.stdin.take().context("no standard input")?;
        input.write_all(self.configuration.to_string().as_bytes())?;
        Ok(Running { child, since })
    }
}

impl Running {
    /// Waits for its end.
    ///
    /// # Errors
    /// Where it does not end in time, or says what is no JSON.
    pub fn end(mut self, patience: Duration) -> Result<Done> {
        while self.is_running()? {
            if self.since.elapsed() > patience {
                self.child.kill()?;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let took = self.since.elapsed();
        ensure!(took <= patience, "it did not end in {patience:?}");
        let output = self.child.wait_with_output()?;
        let answer = match output.stdout.as_slice() {
            [] => Value::Null,
            text => serde_json::from_slice(text)?,
        };
        Ok(Done {
            success: output.status.success(),
            answer,
            took,
        })
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

/// What the plugin before would have said of a pod of the lab.
#[must_use]
pub fn previous(pod: &Pod) -> Value {
    let network = |address: &IpAddr| {
        let length = if address.is_ipv4() { 32 } else { 128 };
        json!({"address": format!("{address}/{length}"), "interface": 1})
    };
    let ips: Vec<_> = pod.endpoint.addresses.iter().map(network).collect();
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": pod.interface},
            {"name": "eth0", "sandbox": pod.endpoint.namespace.path()},
        ],
        "ips": ips,
    })
}
