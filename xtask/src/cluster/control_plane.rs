//! etcd, the API server, the controller manager and the scheduler, in a namespace of their own.

use std::{fmt::Display, fs, process::Command};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    certificate,
    network::{self, API_SERVICE, CONTROL_PLANE, PODS, SERVICES},
    run::{Daemon, Run},
};
use crate::shell::{self, command};

const PORT: u16 = 6443;

/// Names of keys and certificates: the API server's, and that of the administrator, as whom every
/// part of the cluster speaks to the API server, and that to nodes. Only root may read them.
const SERVER: &str = "server";
const ADMINISTRATOR: &str = "admin";

/// Where the control plane is.
pub(super) struct ControlPlane {
    process: u32,
}

impl ControlPlane {
    /// Starts etcd and the API server, and waits for them.
    pub(super) fn start(run: &Run, admission: Admission) -> Result<Self> {
        let holder = run.start(
            "control-plane",
            &mut command("unshare --net sleep infinity"),
        )?;
        let plane = Self {
            process: wait_for_namespaces(holder)?,
        };
        network::connect(plane.process)?;
        plane.etcd(run)?;
        plane.api_server(run, admission)?;
        Ok(plane)
    }

    /// A process in the namespace of the control plane.
    pub(super) fn process(&self) -> u32 {
        self.process
    }

    fn etcd(&self, run: &Run) -> Result<()> {
        let mut etcd = self.command(run, "etcd");
        flags(
            &mut etcd,
            &[
                ("data-dir", &run.path("etcd").display()),
                ("unsafe-no-fsync", &true),
                ("listen-peer-urls", &"http://127.0.0.1:2380"),
                ("log-level", &"warn"),
            ],
        );
        run.start("etcd", &mut etcd)?;
        Ok(())
    }

    fn api_server(&self, run: &Run, admission: Admission) -> Result<()> {
        certificate::authority(run)?;
        certificate::administrator(run, ADMINISTRATOR)?;
        certificate::server(run, SERVER, &["127.0.0.1", CONTROL_PLANE, API_SERVICE])?;
        run.write_json("kubeconfig", &kubeconfig(run))?;
        let file = |name: &str, kind: &str| run.path(format!("{name}.{kind}"));
        let (certificate, key) = (file(SERVER, "crt"), file(SERVER, "key"));
        let (client, client_key) = (file(ADMINISTRATOR, "crt"), file(ADMINISTRATOR, "key"));
        let mut server = self.command(run, "kube-apiserver");
        flags(
            &mut server,
            &[
                ("etcd-servers", &"http://127.0.0.1:2379"),
                ("secure-port", &PORT),
                ("bind-address", &"0.0.0.0"),
                ("advertise-address", &CONTROL_PLANE),
                ("tls-cert-file", &certificate.display()),
                ("tls-private-key-file", &key.display()),
                ("cert-dir", &run.path("certificates").display()),
                ("client-ca-file", &run.path("ca.crt").display()),
                ("service-account-key-file", &certificate.display()),
                ("service-account-signing-key-file", &key.display()),
                ("service-account-issuer", &"https://kubernetes.default.svc"),
                ("service-cluster-ip-range", &SERVICES),
                ("kubelet-client-certificate", &client.display()),
                ("kubelet-client-key", &client_key.display()),
                ("authorization-mode", &"RBAC"),
                ("allow-privileged", &true),
                ("kubelet-preferred-address-types", &"InternalIP"),
                ("disable-admission-plugins", &admission.disabled()),
            ],
        );
        let mut server = run.start("kube-apiserver", &mut server)?;
        server.wait(|| {
            let mut ready = run.kubectl();
            shell::output(ready.args(["get", "--raw", "/readyz"])).is_ok()
        })
    }

    /// Starts what moves objects along.
    pub(super) fn controllers(&self, run: &Run) -> Result<()> {
        let kubeconfig = run.kubeconfig();
        let mut manager = self.command(run, "kube-controller-manager");
        flags(
            &mut manager,
            &[
                ("kubeconfig", &kubeconfig.display()),
                ("root-ca-file", &run.path("ca.crt").display()),
                (
                    "service-account-private-key-file",
                    &run.path("server.key").display(),
                ),
                ("use-service-account-credentials", &true),
                ("leader-elect", &false),
                ("allocate-node-cidrs", &true),
                ("cluster-cidr", &PODS),
                ("service-cluster-ip-range", &SERVICES),
            ],
        );
        run.start("kube-controller-manager", &mut manager)?;
        let mut scheduler = self.command(run, "kube-scheduler");
        flags(
            &mut scheduler,
            &[
                ("kubeconfig", &kubeconfig.display()),
                ("leader-elect", &false),
            ],
        );
        run.start("kube-scheduler", &mut scheduler)?;
        Ok(())
    }

    fn command(&self, run: &Run, program: &str) -> Command {
        let program = run.program(program);
        network::inside(self.process, &program.display().to_string())
    }
}

/// Which pods the API server takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Those whose ServiceAccount is there.
    Usual,
    /// All: without controllers no namespace has a ServiceAccount.
    NoServiceAccounts,
}

impl Admission {
    fn disabled(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::NoServiceAccounts => "ServiceAccount",
        }
    }
}

/// Adds `--name=value` for each.
pub(super) fn flags(command: &mut Command, flags: &[(&str, &dyn Display)]) {
    for (name, value) in flags {
        command.arg(format!("--{name}={value}"));
    }
}

/// What holds namespaces has them once it has become what it is to be.
pub(super) fn wait_for_namespaces(mut holder: Daemon) -> Result<u32> {
    let process = holder.id();
    let name = format!("/proc/{process}/comm");
    holder.wait(|| fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sleep"))?;
    Ok(process)
}

fn kubeconfig(run: &Run) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "palisade",
            "cluster": {
                "server": format!("https://{CONTROL_PLANE}:{PORT}"),
                "certificate-authority": run.path("ca.crt"),
            },
        }],
        "users": [{
            "name": ADMINISTRATOR,
            "user": {
                "client-certificate": run.path(format!("{ADMINISTRATOR}.crt")),
                "client-key": run.path(format!("{ADMINISTRATOR}.key")),
            },
        }],
        "contexts": [{
            "name": "palisade",
            "context": { "cluster": "palisade", "user": ADMINISTRATOR },
        }],
        "current-context": "palisade",
    })
}
