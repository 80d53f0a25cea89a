use std::{
    fmt::Write as _,
    ops::ControlFlow,
    os::unix::fs::symlink,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use super::*;
use crate::source::{Change, Object};

/// A folder of its own, gone when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("palisade-file-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// As the contract asks: written elsewhere, renamed into place.
    fn replace(&self, name: &str, text: &str) {
        self.write(".new", text);
        fs::rename(self.path(".new"), self.path(name)).unwrap();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn namespace(name: &str, label: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{l: \"{label}\"}}\n"
    )
}

/// `+name=label` or `-name` of each change.
fn moves(batch: &Option<Batch>) -> Vec<String> {
    let Some(batch) = batch else {
        return vec!["nothing".to_owned()];
    };
    let text = |change: &Change| match change {
        Change::Apply(Object::Namespace(namespace)) => {
            format!("+{}={}", namespace.name, namespace.labels["l"])
        }
        Change::Apply(other) => format!("+{}", other.key()),
        Change::Delete(key) => format!("-{}", key.name.name),
    };
    batch.changes.iter().map(text).collect()
}

fn issues(batch: &Option<Batch>) -> Vec<String> {
    let batch = batch.as_ref().expect("a batch");
    batch.issues.iter().map(ToString::to_string).collect()
}

#[test]
fn a_first_scan_tells_everything_and_the_second_nothing() {
    let temporary = Temporary::new();
    temporary.write("a.yaml", namespace("a", "1") + &namespace("b", "1"));
    temporary.write("c.json", r#" {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c", "labels": {"l": "1"}}} {"apiVersion": "v1", "kind": "Secret"}"#);
    temporary.write(
        "d.yml",
        r#"{apiVersion: v1, kind: Namespace, metadata: {name: d, labels: {l: "1"}}}"#,
    );
    temporary.write(".hidden.yaml", namespace("h", "1"));
    temporary.write("readme.txt", "no manifest: [");
    fs::create_dir(temporary.path("below.yaml")).unwrap();
    let mut folder = Folder::new(&temporary.0);
    let batch = folder.scan();
    assert_eq!(moves(&batch), ["+a=1", "+b=1", "+c=1", "+d=1"]);
    assert_eq!(issues(&batch), [""; 0]);
    assert!(batch.is_some_and(|batch| batch.synced));
    assert!(folder.scan().is_none());
}

#[test]
fn an_empty_folder_is_synced() {
    let temporary = Temporary::new();
    let mut folder = Folder::new(&temporary.0);
    assert!(
        folder
            .scan()
            .is_some_and(|batch| batch.synced && batch.changes.is_empty())
    );
    assert!(folder.scan().is_none());
}

#[test]
fn a_missing_folder_is_reported_and_keeps_what_it_held() {
    let temporary = Temporary::new();
    let path = temporary.path("manifests");
    let mut folder = Folder::new(&path);
    let batch = folder.scan();
    assert!(batch.as_ref().is_some_and(|batch| !batch.synced));
    assert_eq!(issues(&batch).len(), 1);
    assert!(folder.scan().is_none(), "reported once");
    fs::create_dir(&path).unwrap();
    temporary.write("manifests/a.yaml", namespace("a", "1"));
    assert_eq!(moves(&folder.scan()), ["+a=1"]);
    fs::rename(&path, temporary.path("elsewhere")).unwrap();
    let batch = folder.scan();
    assert_eq!(moves(&batch), [""; 0]);
    assert_eq!(issues(&batch).len(), 1);
    fs::rename(temporary.path("elsewhere"), &path).unwrap();
    let batch = folder.scan();
    assert_eq!((moves(&batch), issues(&batch)), (vec![], vec![]));
}

#[test]
fn replacing_and_removing_files_tells_differences_alone() {
    let temporary = Temporary::new();
    temporary.write("a.yaml", namespace("a", "1") + &namespace("b", "1"));
    temporary.write("c.yaml", namespace("c", "1"));
    let mut folder = Folder::new(&temporary.0);
    folder.scan().expect("the first");
    temporary.replace(
        "a.yaml",
        &(namespace("a", "2") + &namespace("b", "1") + &namespace("d", "1")),
    );
    assert_eq!(moves(&folder.scan()), ["+a=2", "+d=1"]);
    temporary.replace("a.yaml", &namespace("b", "1"));
    assert_eq!(moves(&folder.scan()), ["-a", "-d"]);
    fs::rename(temporary.path("c.yaml"), temporary.path("e.yaml")).unwrap();
    assert_eq!(moves(&folder.scan()), ["nothing"]);
    fs::remove_file(temporary.path("e.yaml")).unwrap();
    assert_eq!(moves(&folder.scan()), ["-c"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_state_and_is_reported() {
    let temporary = Temporary::new();
    let good = namespace("a", "1") + &namespace("b", "1");
    for (name, broken, line) in [
        (
            "half.yaml",
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: {l: ".to_owned(),
            ": line 6",
        ),
        (
            "second.yaml",
            namespace("a", "2") + "---\na: b\n c: d: e\n",
            "line ",
        ),
        (
            "unidentified.yaml",
            namespace("a", "2") + "---\nkind: Namespace\napiVersion: v1\n",
            "metadata: missing",
        ),
        (
            "scalar.yaml",
            "just a text".to_owned(),
            "where an object is expected",
        ),
        ("twice.yaml", "a: 1\na: 2\n".to_owned(), "duplicate"),
        ("deep.yaml", "[".repeat(100_000), ""),
        (
            "half.json",
            r#"{"apiVersion": "v1", "kind": "Names"#.to_owned(),
            "EOF",
        ),
        ("deep.json", "{\"a\":".repeat(100_000), "recursion"),
        (
            "tail.json",
            r#"{"apiVersion": "v1", "kind": "Secret"} x"#.to_owned(),
            "expected",
        ),
    ] {
        let mut folder = Folder::new(&temporary.0);
        temporary.write(name, &good);
        if name.ends_with("json") {
            temporary.write(name, r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"l": "1"}}}"#);
        }
        let objects = moves(&folder.scan()).len();
        temporary.replace(name, &broken);
        let batch = folder.scan();
        assert_eq!(moves(&batch), [""; 0], "{name}");
        let issues = issues(&batch);
        assert_eq!(issues.len(), 1, "{name}");
        assert!(
            issues[0].starts_with(name) && issues[0].ends_with("the last good state is kept"),
            "{issues:?}"
        );
        assert!(issues[0].contains(line), "{issues:?}");
        assert!(folder.scan().is_none(), "{name}: reported once");
        fs::remove_file(temporary.path(name)).unwrap();
        let batch = folder.scan();
        assert_eq!(moves(&batch).len(), objects, "{name}: gone");
        assert!(batch.is_some_and(|batch| batch.issues.is_empty()));
    }
    temporary.write("text.yaml", b"a: \xff\xfe");
    assert_eq!(issues(&Folder::new(&temporary.0).scan()).len(), 1);
}

#[test]
fn a_refused_object_keeps_its_last_good_state_beside_the_others() {
    let temporary = Temporary::new();
    let mut folder = Folder::new(&temporary.0);
    temporary.write("a.yaml", namespace("a", "x") + &namespace("b", "x"));
    folder.scan().expect("the first");
    temporary.replace(
        "a.yaml",
        &(namespace("a", "1") + &namespace("b", "z") + &namespace("c", "2")).replace('"', ""),
    );
    let batch = folder.scan();
    assert_eq!(moves(&batch), ["+b=z"]);
    let reported = issues(&batch);
    assert_eq!(reported.len(), 2);
    assert_eq!(
        reported[0],
        "a.yaml: Namespace a: metadata.labels.l: a number where a string is expected; the object's last good state is kept"
    );
    temporary.replace("a.yaml", &namespace("b", "z"));
    let batch = folder.scan();
    assert_eq!(
        (moves(&batch), issues(&batch)),
        (vec!["-a".to_owned()], vec![])
    );
}

#[test]
fn of_several_definitions_the_last_by_file_name_holds() {
    let temporary = Temporary::new();
    let mut folder = Folder::new(&temporary.0);
    temporary.write("b.yaml", namespace("a", "b"));
    assert_eq!(moves(&folder.scan()), ["+a=b"]);
    temporary.write("a.yaml", namespace("a", "a"));
    let batch = folder.scan();
    assert_eq!(moves(&batch), [""; 0]);
    assert_eq!(
        issues(&batch),
        ["Namespace a: is defined more than once, in a.yaml, b.yaml; the last definition is used"]
    );
    temporary.write("c.yaml", namespace("a", "first") + &namespace("a", "c"));
    let batch = folder.scan();
    assert_eq!(moves(&batch), ["+a=c"]);
    assert_eq!(issues(&batch).len(), 2);
    fs::remove_file(temporary.path("c.yaml")).unwrap();
    assert_eq!(moves(&folder.scan()), ["+a=b"]);
    fs::remove_file(temporary.path("b.yaml")).unwrap();
    let batch = folder.scan();
    assert_eq!(
        (moves(&batch), issues(&batch)),
        (vec!["+a=a".to_owned()], vec![])
    );
    fs::remove_file(temporary.path("a.yaml")).unwrap();
    assert_eq!(moves(&folder.scan()), ["-a"]);
}

#[test]
fn a_mounted_configmap_changes_as_one() {
    let temporary = Temporary::new();
    for generation in ["1", "2"] {
        fs::create_dir(temporary.path(&format!("..{generation}"))).unwrap();
        temporary.write(
            &format!("..{generation}/a.yaml"),
            namespace("a", generation),
        );
        temporary.write(
            &format!("..{generation}/b.yaml"),
            namespace("b", generation),
        );
    }
    symlink("..1", temporary.path("..data")).unwrap();
    symlink("..data/a.yaml", temporary.path("a.yaml")).unwrap();
    symlink("..data/b.yaml", temporary.path("b.yaml")).unwrap();
    let mut folder = Folder::new(&temporary.0);
    assert_eq!(moves(&folder.scan()), ["+a=1", "+b=1"]);
    symlink("..2", temporary.path("..data_tmp")).unwrap();
    fs::rename(temporary.path("..data_tmp"), temporary.path("..data")).unwrap();
    assert_eq!(moves(&folder.scan()), ["+a=2", "+b=2"]);
    fs::remove_dir_all(temporary.path("..2")).unwrap();
    let batch = folder.scan();
    assert_eq!(moves(&batch), [""; 0], "a link to nothing is a broken file");
    assert_eq!(issues(&batch).len(), 2);
}

#[test]
fn only_changed_documents_are_parsed() {
    let temporary = Temporary::new();
    let mut folder = Folder::new(&temporary.0);
    temporary.write("a.yaml", namespace("a", "1") + &namespace("b", "1"));
    folder.scan().expect("the first");
    let pointers = |folder: &Folder| -> Vec<_> {
        folder.files["a.yaml"]
            .documents
            .objects()
            .values()
            .map(Arc::as_ptr)
            .collect()
    };
    let before = pointers(&folder);
    temporary.replace(
        "a.yaml",
        &(namespace("c", "1") + &namespace("a", "2") + &namespace("b", "1")),
    );
    folder.scan().expect("a change");
    let after = pointers(&folder);
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
}

#[test]
fn a_file_that_is_being_written_keeps_its_last_good_state() {
    let temporary = Temporary::new();
    let mut folder = Folder::new(&temporary.0);
    temporary.write("a.yaml", namespace("a", "1") + &namespace("b", "1"));
    folder.scan().expect("the first");
    temporary.write("a.yaml", namespace("a", "1"));
    let busy = HashSet::from([Arc::from("a.yaml")]);
    let reads = folder.read(&HashSet::new(), &HashSet::new());
    assert!(
        folder.take(reads, &busy).is_none(),
        "written while it was read"
    );
    let mut reads = folder.read(&HashSet::new(), &busy);
    reads.seen += PATIENCE;
    assert_eq!(
        issues(&folder.take(reads, &busy)),
        ["a.yaml: is being written; the last good state is kept"]
    );
    let batch = folder.scan();
    assert_eq!(
        (moves(&batch), issues(&batch)),
        (vec!["-b".to_owned()], vec![])
    );
}

/// A watched folder and what it tells.
struct Watched(mpsc::Receiver<Batch>);

impl Watched {
    fn new(path: impl Into<PathBuf>) -> Self {
        let folder = Folder::new(path);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            watch(folder, |batch| {
                match batch.map_or(Ok(()), |batch| sender.send(batch)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
        });
        Self(receiver)
    }

    fn next(&self) -> Option<Batch> {
        self.0.recv_timeout(Duration::from_secs(60)).ok()
    }

    fn quiet(&self) {
        let batch = self.0.recv_timeout(Duration::from_millis(150)).ok();
        assert_eq!(moves(&batch), ["nothing"]);
    }
}

#[test]
fn watching_tells_renames_writes_links_and_removals() {
    let temporary = Temporary::new();
    temporary.write("a.yaml", namespace("a", "1"));
    let watched = Watched::new(&temporary.0);
    assert_eq!(moves(&watched.next()), ["+a=1"]);
    temporary.replace("a.yaml", &namespace("a", "2"));
    assert_eq!(moves(&watched.next()), ["+a=2"]);
    temporary.write("b.yaml", namespace("b", "1"));
    assert_eq!(moves(&watched.next()), ["+b=1"]);
    fs::rename(temporary.path("b.yaml"), temporary.path("c.yaml")).unwrap();
    watched.quiet();
    fs::remove_file(temporary.path("c.yaml")).unwrap();
    assert_eq!(moves(&watched.next()), ["-b"]);
    temporary.write(".store", namespace("d", "1"));
    symlink(".store", temporary.path("d.yaml")).unwrap();
    assert_eq!(moves(&watched.next()), ["+d=1"]);
}

#[test]
fn watching_never_takes_half_of_a_file() {
    use std::io::Write as _;
    let temporary = Temporary::new();
    let watched = Watched::new(&temporary.0);
    assert_eq!(moves(&watched.next()), [""; 0]);
    let mut file = fs::File::create(temporary.path("a.yaml")).unwrap();
    for name in ["a", "b", "c"] {
        file.write_all(namespace(name, "1").as_bytes()).unwrap();
        watched.quiet();
    }
    drop(file);
    assert_eq!(moves(&watched.next()), ["+a=1", "+b=1", "+c=1"]);
}

#[test]
fn watching_follows_a_folder_that_is_replaced() {
    let temporary = Temporary::new();
    for name in ["one", "two"] {
        fs::create_dir(temporary.path(name)).unwrap();
        temporary.write(&format!("{name}/a.yaml"), namespace("a", name));
    }
    let watched = Watched::new(temporary.path("one"));
    assert_eq!(moves(&watched.next()), ["+a=one"]);
    fs::rename(temporary.path("one"), temporary.path("old")).unwrap();
    assert_eq!(issues(&watched.next()).len(), 1);
    fs::rename(temporary.path("two"), temporary.path("one")).unwrap();
    assert_eq!(moves(&watched.next()), ["+a=two"]);
    temporary.write("one/a.yaml", namespace("a", "three"));
    assert_eq!(moves(&watched.next()), ["+a=three"]);
}

#[test]
fn one_changed_pod_of_a_thousand_is_told_alone() {
    let temporary = Temporary::new();
    let pods = |labels: &str| {
        let mut text = String::new();
        for index in 0..1000 {
            let label = if index == 500 { labels } else { "none" };
            write!(
                text,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}, namespace: n, labels: {{app: {label}}}}}\n\
                 spec: {{nodeName: a, containers: [{{name: c, ports: [{{name: http, containerPort: 80}}]}}]}}\n\
                 status: {{phase: Running, podIP: 10.0.{}.{}}}\n",
                index / 250,
                index % 250,
            )
            .unwrap();
        }
        text
    };
    temporary.write("pods.yaml", pods("a0"));
    let watched = Watched::new(&temporary.0);
    let first = watched.next();
    assert_eq!(issues(&first), [""; 0]);
    assert_eq!(moves(&first).len(), 1000);
    for round in 1..=9 {
        temporary.write(".new", pods(&format!("a{round}")));
        fs::rename(temporary.path(".new"), temporary.path("pods.yaml")).unwrap();
        assert_eq!(watched.next().expect("a change").changes.len(), 1);
    }
}
