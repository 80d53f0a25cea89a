//! `docs/before-you-apply.md`, and `docs/see.md` where it is about files, show what their commands print, and the commands end as
//! `docs/api.md` says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A copy of the example, for commands write there; gone when dropped.
struct Shop(PathBuf);

impl Shop {
    fn new(name: &str) -> Self {
        let copy = std::env::temp_dir().join(format!("palisade-{name}-{}", std::process::id()));
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(root().join("deploy/examples/shop")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        Self(copy)
    }

    /// Runs a line of shell in which `palisade` is the program.
    fn shell(&self, line: &str) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_palisade"));
        let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", path).current_dir(&self.0);
        command.args(["-c", line]).output().unwrap()
    }

    fn code(&self, arguments: &str) -> i32 {
        let output = self.shell(&format!("palisade {arguments}"));
        output.status.code().expect("not killed")
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The commands of a page, each with what it is said to print.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        match line.strip_prefix("    ") {
            Some(code) => match code.strip_prefix("$ ") {
                Some(command) => {
                    commands.push((command.to_owned(), String::new()));
                    open = true;
                }
                None if open => {
                    let (_, printed) = commands.last_mut().expect("open");
                    printed.push_str(code);
                    printed.push('\n');
                }
                None => {}
            },
            // An empty line may be one that is printed.
            None if line.is_empty() && open => {
                let (_, printed) = commands.last_mut().expect("open");
                printed.push('\n');
            }
            None => open = false,
        }
    }
    for (_, printed) in &mut commands {
        let text = printed.trim_end().to_owned();
        *printed = text;
    }
    commands
}

#[test]
fn the_pages_show_what_their_commands_print() {
    for (page, least) in [("before-you-apply", 10), ("see", 4)] {
        let text = fs::read_to_string(root().join(format!("docs/{page}.md"))).unwrap();
        let shop = Shop::new(page);
        let commands = commands(&text);
        assert!(commands.len() >= least, "{commands:?}");
        for (command, printed) in commands {
            let output = shop.shell(&command);
            let found = String::from_utf8(output.stdout).unwrap();
            assert_eq!(found.trim_end(), printed, "{command}");
        }
    }
}

#[test]
fn commands_end_as_documented() {
    let shop = Shop::new("codes");
    fs::write(shop.0.join("broken.yaml"), "kind: NetworkPol").unwrap();
    fs::write(shop.0.join("wrong.txt"), "a/b => c/d allow\n").unwrap();
    fs::write(shop.0.join("nobody.txt"), "shop/nobody -> shop/api deny\n").unwrap();
    fs::write(
        shop.0.join("fails.txt"),
        "shop/nobody -> shop/api deny\nshop/db -> shop/api allow\n",
    )
    .unwrap();
    fs::write(shop.0.join("broken.jsonl"), "{}\n").unwrap();
    let good = "--manifests shop.yaml --manifests policies.yaml";
    let bad = format!("{good} --manifests mistakes.yaml");
    let broken = format!("{good} --manifests broken.yaml");
    for (arguments, expected) in [
        (format!("lint {good}"), 0),
        (format!("lint {bad}"), 1),
        (format!("lint {bad} --fail-on never"), 0),
        (format!("lint {bad} --fail-on error"), 1),
        (
            format!("lint {bad} --fail-on error --ignore PL002 --ignore end-port-before-port"),
            0,
        ),
        (format!("lint {broken}"), 1),
        ("lint --manifests nonexistent.yaml".to_owned(), 3),
        ("lint --kubeconfig nonexistent.yaml".to_owned(), 3),
        (format!("lint {good} --kubeconfig x"), 2),
        (format!("lint {good} --fail-on sometimes"), 2),
        (format!("report {good}"), 0),
        (format!("report {bad} -o csv"), 0),
        (format!("report {good} --unused-days 0"), 2),
        (format!("report {good} --since-report shop.yaml"), 2),
        (format!("report {broken}"), 3),
        (format!("report {good} --socket nonexistent.sock"), 3),
        (format!("explain --live --from a/b --to c/d {good}"), 2),
        (format!("verify --expect expectations.txt {good}"), 0),
        (format!("verify --expect fails.txt {good}"), 1),
        (format!("verify --expect nobody.txt {good}"), 3),
        (format!("verify --expect wrong.txt {good}"), 2),
        (format!("verify --expect nonexistent.txt {good}"), 2),
        (format!("verify {good}"), 2),
        (format!("verify --expect expectations.txt {broken}"), 3),
        (
            format!("verify --expect expectations.txt {good} --junit-file nonexistent/report.xml"),
            3,
        ),
        (format!("simulate --candidate policies.yaml {good}"), 0),
        (format!("simulate --candidate candidate.yaml {good}"), 1),
        (
            format!("simulate --candidate candidate.yaml {good} --fail-on gained"),
            0,
        ),
        (
            format!("simulate --candidate candidate.yaml {good} --flows flows.jsonl"),
            1,
        ),
        (
            format!("simulate --without shop/dns {good} --fail-on any"),
            1,
        ),
        (format!("simulate --without shop/nobody {good}"), 3),
        (format!("simulate --candidate broken.yaml {good}"), 3),
        (
            format!("simulate --candidate candidate.yaml {good} --flows broken.jsonl"),
            3,
        ),
        (format!("simulate {good}"), 2),
        (format!("generate --flows flows.jsonl {good}"), 0),
        (format!("generate --map map.yaml {good}"), 0),
        (format!("generate --map expectations.txt {good}"), 2),
        ("generate --map map.yaml".to_owned(), 2),
        (
            "generate --flows flows.jsonl --manifests candidate.yaml".to_owned(),
            1,
        ),
        (format!("generate --flows broken.jsonl {good}"), 3),
        ("generate --template dns".to_owned(), 2),
        (
            "generate --template monitoring --namespace shop".to_owned(),
            2,
        ),
        ("generate --template dns --namespace shop".to_owned(), 0),
        (
            format!("generate --flows flows.jsonl {good} -o kustomize"),
            2,
        ),
        (
            format!("generate --flows flows.jsonl {good} -o kustomize --output-dir out"),
            0,
        ),
    ] {
        assert_eq!(shop.code(&arguments), expected, "{arguments}");
    }
    assert!(shop.0.join("out/kustomization.yaml").is_file());
}

#[test]
fn standard_input_is_a_file_too() {
    let shop = Shop::new("input");
    let both = "(cat shop.yaml; echo ---; cat policies.yaml)";
    let output = shop.shell(&format!("{both} | palisade lint --manifests - -o json"));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found, serde_json::json!({"findings": []}));
}

#[test]
fn junit_names_each_expectation() {
    let shop = Shop::new("junit");
    let good = "--manifests shop.yaml --manifests policies.yaml";
    shop.code(&format!(
        "verify --expect expectations.txt {good} --junit-file report.xml"
    ));
    let report = fs::read_to_string(shop.0.join("report.xml")).unwrap();
    assert_eq!(report.matches("<testcase ").count(), 7);
    assert!(
        report.contains("tests=\"7\" failures=\"0\" errors=\"0\""),
        "{report}"
    );
}
