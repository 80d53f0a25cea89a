//! What judges policies before they are applied, on the objects of a real API server.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    control_plane::{ControlPlane, Objects, skip_without_assets},
};
use serde_json::{Value, json};

/// A file, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Result<Self> {
        let name = format!("palisade-before-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text)?;
        Ok(Self(path))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("written as text")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}

/// A Deployment's pod that its controller would have made, a client, a Service and a policy.
fn shop() -> Vec<Value> {
    let pod = |name: &str, labels: Value, owner: Value, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": labels, "ownerReferences": owner},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "main", "image": "none", "ports": [{"name": "http", "containerPort": 8080}]},
            ]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        })
    };
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api-5d9c", "uid": "1", "controller": true,
    }]);
    let labels = json!({"app": "api", "pod-template-hash": "5d9c"});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        pod("api-5d9c-x", labels, owner, "10.0.0.1"),
        pod("web", json!({"app": "web"}), json!([]), "10.0.0.2"),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "api", "namespace": "shop"},
            "spec": {"selector": {"app": "api"}, "ports": [{"port": 80, "targetPort": "http"}]},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "api", "namespace": "shop"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "api"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]}],
            },
        }),
    ]
}

#[test]
fn commands_judge_what_the_api_server_has() -> Result<()> {
    if skip_without_assets() {
        return Ok(());
    }
    let control_plane = ControlPlane::start()?;
    let mut objects = Objects::new(&control_plane);
    objects.sync(&shop())?;
    let kubeconfig = Scratch::new("kubeconfig", "")?;
    control_plane.kubeconfig(control_plane.address(), &kubeconfig.0)?;
    let run = |arguments: &[&str]| -> Result<(i32, String, String)> {
        let mut command = Command::new(Agent::program()?);
        command
            .env_clear()
            .args(arguments)
            .arg("--kubeconfig")
            .arg(&kubeconfig.0);
        let output = command.output()?;
        Ok((
            output.status.code().context("killed")?,
            String::from_utf8(output.stdout)?,
            String::from_utf8(output.stderr)?,
        ))
    };
    let to =
        |to: &str, port: &str| run(&["explain", "--from", "shop/web", "--to", to, "--port", port]);
    let (code, out, said) = to("service/shop/api", "80")?;
    ensure!(code == 0, "{code}: {out}{said}");
    ensure!(
        out.contains("shop/api-5d9c-x (10.0.0.1) 8080/TCP: allowed"),
        "{out}"
    );
    // The agent's own account may not list nodes.
    ensure!(said.contains("nodes may not be listed"), "{said}");
    let (code, out, _) = to("shop/api-5d9c-x", "8081")?;
    ensure!(code == 1, "{code}: {out}");
    let expectations = Scratch::new(
        "expect",
        "shop/web -> shop/api:8080 allow\noutside -> shop/api deny\n",
    )?;
    let (code, out, said) = run(&["verify", "--expect", expectations.path()])?;
    ensure!(
        code == 0 && out.ends_with("2 of 2 expectations hold\n"),
        "{code}: {out}{said}"
    );
    let (code, out, said) = run(&["lint", "--ignore", "PL108"])?;
    ensure!(code == 1, "{code}: {out}{said}");
    ensure!(
        out == "warning: Namespace shop: no policy isolates the ingress of all pods; of its 2 1 are open to everything [PL107]\n\
                0 errors, 1 warnings, 0 infos\n",
        "{out}"
    );
    let flow = json!({
        "number": 1, "time": "2026-01-02T03:04:05Z", "verdict": "allowed", "reason": "", "direction": "ingress",
        "pod": {"namespace": "shop", "pod": "api-5d9c-gone", "address": "10.0.0.9"},
        "peer": {"namespace": "shop", "pod": "web", "address": "10.0.0.2"},
        "sourcePort": 40000, "destinationPort": 8080, "protocol": "TCP", "policies": [],
    });
    let flows = Scratch::new("flows", &flow.to_string())?;
    let (code, generated, said) = run(&["generate", "--flows", flows.path()])?;
    ensure!(code == 0, "{code}: {generated}{said}");
    ensure!(!generated.contains("5d9c"), "{generated}");
    let candidate = Scratch::new("candidate.yaml", &generated)?;
    let simulate = [
        "simulate",
        "--candidate",
        candidate.path(),
        "--flows",
        flows.path(),
    ];
    let (code, out, said) = run(&simulate)?;
    ensure!(
        code == 0 && out.ends_with("none of them would be cut\n"),
        "{code}: {out}{said}"
    );
    ensure!(out.contains("- shop/web -> outside: everything\n"), "{out}");
    let nowhere = run(&[
        "explain",
        "--from",
        "shop/web",
        "--to",
        "10.0.0.1",
        "--context",
        "none",
    ])?;
    ensure!(nowhere.0 == 3, "{nowhere:?}");
    Ok(())
}
