//! A watch server that says what a test tells it to say: what the real one cannot be made to do.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::lab::Namespace;

/// The lists that an agent asks for, as paths end.
const LISTS: [&str; 4] = ["namespaces", "pods", "networkpolicies", "services"];

/// How the answer to a watch begins. What has no length ends with the connection.
const WATCH: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";

/// A fake API server. It speaks HTTP/1.1 without encryption, and reads no tokens.
#[derive(Debug)]
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    lists: BTreeMap<String, List>,
    /// What is asked for and gets this code.
    refused: BTreeMap<String, u16>,
    /// How often it was.
    refusals: usize,
    /// Whether lists can be streamed.
    streams: bool,
}

/// Makes the n-th object of many, as JSON on one line.
pub type Make = fn(usize) -> String;

#[derive(Debug, Default)]
struct List {
    objects: Vec<Value>,
    /// More objects, made while they are sent.
    crowd: Option<(usize, Make)>,
    version: u64,
    /// The newest version of which an event told.
    told: u64,
    watches: Vec<TcpStream>,
    /// How often it was listed.
    listed: usize,
}

impl Fake {
    /// Listens on the loopback of a namespace. All lists are empty.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let serving = shared.clone();
        // It ends with the process: nothing but its socket is left until then.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                thread::spawn(move || {
                    if let Err(error) = serve(stream, &shared) {
                        eprintln!("the fake server: {error:#}");
                    }
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// Writes a kubeconfig that leads there.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn kubeconfig(&self, path: &Path) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}],
            "current-context": "fake",
        });
        Ok(fs::write(path, config.to_string())?)
    }

    /// Makes these what is listed from now on.
    pub fn list(&self, list: &str, version: u64, objects: &[Value]) {
        let mut shared = lock(&self.shared);
        let list = shared.lists.entry(list.to_owned()).or_default();
        list.objects = objects.to_vec();
        list.version = version;
    }

    /// Streams lists from now on, this one with so many more objects.
    pub fn stream(&self, list: &str, count: usize, make: Make) {
        let mut shared = lock(&self.shared);
        shared.streams = true;
        shared.lists.entry(list.to_owned()).or_default().crowd = Some((count, make));
    }

    /// Says something to all who watch; nobody may be there.
    pub fn say(&self, list: &str, text: &str) {
        let mut shared = lock(&self.shared);
        let list = shared.lists.entry(list.to_owned()).or_default();
        list.watches
            .retain_mut(|watch| watch.write_all(text.as_bytes()).is_ok());
    }

    /// Tells of an object: `ADDED`, `MODIFIED` or `DELETED`.
    pub fn tell(&self, list: &str, what: &str, object: &Value) {
        let version = object["metadata"]["resourceVersion"].as_str();
        let version = version
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        {
            let mut shared = lock(&self.shared);
            let list = shared.lists.entry(list.to_owned()).or_default();
            list.told = list.told.max(version);
        }
        self.say(
            list,
            &format!("{}\n", json!({"type": what, "object": object})),
        );
    }

    /// Tells that the version to go on from is gone.
    pub fn expire(&self, list: &str) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "too old resource version", "reason": "Expired", "code": 410,
        });
        self.tell(list, "ERROR", &status);
        self.close(list);
    }

    /// Closes all watches of a list.
    pub fn close(&self, list: &str) {
        lock(&self.shared)
            .lists
            .entry(list.to_owned())
            .or_default()
            .watches
            .clear();
    }

    /// Answers requests for a list with a code, or (`None`) as it should.
    pub fn refuse(&self, list: &str, code: Option<u16>) {
        let mut shared = lock(&self.shared);
        match code {
            Some(code) => shared.refused.insert(list.to_owned(), code),
            None => shared.refused.remove(list),
        };
    }

    /// How often something was asked for in vain.
    #[must_use]
    pub fn refused(&self) -> usize {
        lock(&self.shared).refusals
    }

    /// How often a list was asked for.
    #[must_use]
    pub fn listed(&self, list: &str) -> usize {
        lock(&self.shared)
            .lists
            .get(list)
            .map_or(0, |list| list.listed)
    }

    /// Waits until somebody watches every list.
    ///
    /// # Errors
    /// Where nobody does in time.
    pub fn wait_until_watched(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let watched = {
                let shared = lock(&self.shared);
                let watched = |list: &&str| {
                    let list = shared.lists.get(*list);
                    list.is_some_and(|list| !list.watches.is_empty())
                };
                LISTS.iter().all(watched)
            };
            if watched {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "nobody watches");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An object as a server tells of it.
#[must_use]
pub fn versioned(object: &Value, version: u64) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    object
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection, one request after the other.
fn serve(mut stream: TcpStream, all: &Mutex<Shared>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? <= 2 {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let name = path.rsplit('/').next().unwrap_or_default();
        let mut shared = lock(all);
        if let Some(&code) = shared.refused.get(name) {
            shared.refusals += 1;
            drop(shared);
            answer(&mut stream, code, &failure(code))?;
        } else if query.contains("sendInitialEvents") && shared.streams {
            let list = shared.lists.entry(name.to_owned()).or_default();
            let (objects, crowd, version) = (list.objects.clone(), list.crowd, list.version);
            drop(shared);
            let mut writer = BufWriter::new(&stream);
            writer.write_all(WATCH)?;
            let (count, make) = crowd.unwrap_or((0, |_| String::new()));
            let objects = objects.iter().map(Value::to_string);
            for object in objects.chain((0..count).map(make)) {
                writeln!(writer, r#"{{"type":"ADDED","object":{object}}}"#)?;
            }
            let end = json!({
                "kind": "Bookmark", "apiVersion": "v1",
                "metadata": {
                    "resourceVersion": version.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"},
                },
            });
            writeln!(writer, "{}", json!({"type": "BOOKMARK", "object": end}))?;
            writer.flush()?;
            drop(writer);
            let mut shared = lock(all);
            let list = shared.lists.entry(name.to_owned()).or_default();
            list.watches.push(stream);
            return Ok(());
        } else if query.contains("sendInitialEvents") {
            // As servers do that cannot stream lists.
            answer(&mut stream, 422, &failure(422))?;
        } else if query.contains("watch=true") {
            stream.write_all(WATCH)?;
            let list = shared.lists.entry(name.to_owned()).or_default();
            list.watches.push(stream);
            return Ok(());
        } else if query.split('&').any(|part| part == "limit=1") {
            // Who asks so wants to know the present version.
            let list = shared.lists.entry(name.to_owned()).or_default();
            let body = json!({
                "kind": "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": list.version.max(list.told).to_string()},
                "items": [],
            });
            answer(&mut stream, 200, &body)?;
        } else {
            let list = shared.lists.entry(name.to_owned()).or_default();
            list.listed += 1;
            let body = json!({
                "kind": "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": list.version.to_string()},
                "items": list.objects,
            });
            answer(&mut stream, 200, &body)?;
        }
    }
}

fn failure(code: u16) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "as told", "reason": "", "code": code,
    })
}

fn answer(stream: &mut TcpStream, code: u16, body: &Value) -> Result<()> {
    let body = body.to_string();
    let length = body.len();
    // As servers say that have too much to do.
    let later = if code == 429 {
        "Retry-After: 1\r\n"
    } else {
        ""
    };
    write!(
        stream,
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\n{later}Content-Length: {length}\r\n\r\n{body}"
    )?;
    Ok(())
}
