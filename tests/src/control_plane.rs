//! A control plane alone: etcd and an API server on loopback, with ports of their own. No node, no controller: pods
//! have the addresses that tests give them.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kube::{Client, Config, config::Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::assets::Assets;
pub use self::{
    assets::program,
    fake::{Fake, Make, versioned},
    kube_proxy::{KubeProxy, Mode},
    objects::Objects,
    relay::Relay,
};
use crate::lab::Process;

mod assets;
mod fake;
mod kube_proxy;
mod objects;
mod relay;

/// The token of the cluster's administrator.
const ADMIN: &str = "admin";
/// The token of the agent's ServiceAccount.
const AGENT: &str = "agent";
/// Whom the API server takes for whom.
const TOKENS: &str = "admin,admin,admin,system:masters
agent,system:serviceaccount:kube-system:palisade,agent,\"system:serviceaccounts,system:serviceaccounts:kube-system\"
";
/// The ClusterRole that is shipped.
const ROLE: &str = include_str!("../../deploy/helm/palisade/templates/clusterrole.yaml");
/// How long either may take to start.
/// What etcd holds, and a copy of it.
const STORE: &str = "etcd";
const BACKUP: &str = "etcd-backup";
const READY: Duration = Duration::from_secs(180);

/// Whether there is no control plane to start; says so if there is none.
#[must_use]
pub fn skip_without_assets() -> bool {
    skip(Assets::find().err())
}

/// Whether a program of a cluster is missing; says so if it is.
#[must_use]
pub fn skip_without(program: &str) -> bool {
    skip(assets::program(program).err())
}

fn skip(missing: Option<anyhow::Error>) -> bool {
    if let Some(error) = &missing {
        println!("SKIP: {error:#}");
    }
    missing.is_some()
}

/// A control plane. It ends when this is dropped.
pub struct ControlPlane {
    assets: Assets,
    /// Of etcd, for clients and for peers.
    etcd_ports: [u16; 2],
    port: u16,
    etcd: Option<Process>,
    server: Option<Process>,
    runtime: Runtime,
    client: Client,
    folder: Folder,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address();
        f.debug_struct("ControlPlane")
            .field("address", &address)
            .finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts one, with the rights of the agent's ServiceAccount as they are shipped.
    ///
    /// # Errors
    /// Where a program is missing or does not get ready.
    pub fn start() -> Result<Self> {
        let assets = Assets::find()?;
        let folder = Folder::create()?;
        let [one, other, port] = free_ports()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        fs::write(folder.0.join("tokens.csv"), TOKENS)?;
        keys(&folder.0)?;
        let etcd = etcd(&assets, &folder.0, [one, other])?;
        let server = server(&assets, &folder.0, one, port)?;
        let client = client(&runtime, &folder.0, port)?;
        let mut control_plane = Self {
            assets,
            etcd_ports: [one, other],
            port,
            etcd: Some(etcd),
            server: Some(server),
            runtime,
            client,
            folder,
        };
        control_plane.wait_until_ready()?;
        Objects::new(&control_plane).sync(&rights()?)?;
        Ok(control_plane)
    }

    /// Where the API server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Writes a kubeconfig of the agent's ServiceAccount, which finds the API server at an address: its own, or a
    /// relay's.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn kubeconfig(&self, address: SocketAddr, path: &Path) -> Result<()> {
        Ok(fs::write(
            path,
            kubeconfig(&self.folder.0, address, AGENT)?,
        )?)
    }

    /// The same of the administrator.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn admin_kubeconfig(&self, address: SocketAddr, path: &Path) -> Result<()> {
        Ok(fs::write(
            path,
            kubeconfig(&self.folder.0, address, ADMIN)?,
        )?)
    }

    /// Runs something with the administrator's client.
    pub fn run<F: Future>(&self, task: impl FnOnce(Client) -> F) -> F::Output {
        // Made inside: a client wants a runtime around it.
        self.runtime
            .block_on(async { task(self.client.clone()).await })
    }

    /// Ends the API server at once.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn kill_server(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            server.kill()?;
        }
        Ok(())
    }

    /// Starts the API server again, at the same address.
    ///
    /// # Errors
    /// Where it does not get ready.
    pub fn start_server(&mut self) -> Result<()> {
        let [etcd, _] = self.etcd_ports;
        self.server = Some(server(&self.assets, &self.folder.0, etcd, self.port)?);
        self.client = client(&self.runtime, &self.folder.0, self.port)?;
        self.wait_until_ready()
    }

    /// Puts what etcd holds aside, for [`Self::restore`].
    ///
    /// # Errors
    /// Where a process cannot be waited for, or does not get ready again.
    pub fn back_up(&mut self) -> Result<()> {
        self.exchange(STORE, BACKUP)
    }

    /// Gives etcd back what was put aside: versions go back with it.
    ///
    /// # Errors
    /// Where nothing was put aside, or a process does not get ready again.
    pub fn restore(&mut self) -> Result<()> {
        self.exchange(BACKUP, STORE)
    }

    /// Ends both processes, makes one folder a copy of the other, and starts them again.
    fn exchange(&mut self, from: &str, to: &str) -> Result<()> {
        self.kill_server()?;
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill()?;
        }
        let [from, to] = [from, to].map(|name| self.folder.0.join(name));
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        let copied = Command::new("cp").arg("-a").args([&from, &to]).status()?;
        ensure!(copied.success(), "{} cannot be copied", from.display());
        self.etcd = Some(etcd(&self.assets, &self.folder.0, self.etcd_ports)?);
        self.start_server()
    }

    /// Lets etcd forget all versions but the present ones.
    ///
    /// # Errors
    /// Where etcd refuses.
    pub fn compact(&self) -> Result<()> {
        let [port, _] = self.etcd_ports;
        let key = "AA=="; // The key of one zero byte: there is none such, but the answer tells the revision.
        let answer = post(port, "/v3/kv/range", &json!({"key": key}))?;
        let revision = answer["header"]["revision"]
            .as_str()
            .context("no revision")?;
        post(
            port,
            "/v3/kv/compaction",
            &json!({"revision": revision, "physical": true}),
        )?;
        Ok(())
    }

    /// The API server's process id.
    #[must_use]
    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Process::pid)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            let request = hyper::Request::get("/readyz").body(Vec::new())?;
            let answer = self.run(|client| async move { client.request_text(request).await });
            let Err(error) = answer else { return Ok(()) };
            for process in [&mut self.etcd, &mut self.server].into_iter().flatten() {
                if !process.is_running() || Instant::now() > deadline {
                    bail!("the control plane is not ready: {error}\n{}", process.log());
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn etcd(assets: &Assets, folder: &Path, [client, peer]: [u16; 2]) -> Result<Process> {
    let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
    let mut command = Command::new(&assets.etcd);
    command
        .arg("--data-dir")
        .arg(folder.join(STORE))
        .args(["--unsafe-no-fsync", "--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")]);
    Process::start(command, &folder.join("etcd.log"))
}

fn server(assets: &Assets, folder: &Path, etcd: u16, port: u16) -> Result<Process> {
    let at = |flag: &str, file: &str| format!("--{flag}={}", folder.join(file).display());
    let mut command = Command::new(&assets.kube_apiserver);
    command
        .args([
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            format!("--secure-port={port}"),
            at("cert-dir", "certificates"),
            at("token-auth-file", "tokens.csv"),
            at("service-account-key-file", "accounts.key"),
            at("service-account-signing-key-file", "accounts.key"),
        ])
        .args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged",
        ]);
    Process::start(command, &folder.join("kube-apiserver.log"))
}

/// What the agent's ServiceAccount may do: the rules that the chart ships, and nothing else.
fn rights() -> Result<[Value; 2]> {
    let (_, rules) = ROLE.split_once("rules:\n").context("no rules")?;
    let (rules, _) = rules.split_once("---").context("no binding")?;
    let rules: Value = serde_saphyr::from_str(rules)?;
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    Ok([
        json!({
            "apiVersion": version, "kind": "ClusterRole", "metadata": {"name": "palisade"},
            "rules": rules,
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": "palisade"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "palisade"},
            "subjects": [{"kind": "ServiceAccount", "name": "palisade", "namespace": "kube-system"}],
        }),
    ])
}

/// The key that signs tokens of ServiceAccounts.
fn keys(folder: &Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args([
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
    ]);
    let output = command.arg(folder.join("accounts.key")).output();
    let output = output.context("running openssl")?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(())
}

/// Of whoever has the token.
fn kubeconfig(folder: &Path, address: SocketAddr, token: &str) -> Result<String> {
    let certificate = folder.join("certificates/apiserver.crt");
    Ok(serde_json::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{address}"), "certificate-authority": certificate,
        }}],
        "users": [{"name": token, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": token}}],
        "current-context": "test",
    }))?)
}

/// The administrator's client. The server makes its certificate when it starts first.
fn client(runtime: &Runtime, folder: &Path, port: u16) -> Result<Client> {
    let certificate = folder.join("certificates/apiserver.crt");
    let deadline = Instant::now() + READY;
    while !certificate.is_file() {
        ensure!(Instant::now() < deadline, "no {}", certificate.display());
        thread::sleep(Duration::from_millis(20));
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig(folder, address, ADMIN)?)?;
    runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(Client::try_from(config)?)
    })
}

/// Ports that nobody listens on.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Asks etcd's JSON gateway.
fn post(port: u16, path: &str, body: &Value) -> Result<Value> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.contains(" 200 "), "{path}: {answer}");
    Ok(serde_json::from_str(body)?)
}

/// A folder that goes when this is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("palisade-control-plane-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}
