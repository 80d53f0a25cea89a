//! What `docs/troubleshooting.md` says, tried: each symptom is produced in the cluster, and the command that the page names
//! finds its cause. Where all is well, and looks alike, the command finds nothing.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{run::Run, suite};
use crate::shell;

const PAGE: &str = "docs/troubleshooting.md";
const FOLDER: &str = "deploy/examples/symptoms";
/// What the page and the objects call the namespace; here there are two.
const NAMESPACE: &str = "shop";
const SICK: &str = "palisade-sick";
const WELL: &str = "palisade-well";
/// How long what is found may take to be there, and what is not to be found is looked for.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOKS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(500);

/// A section of the page.
struct Symptom {
    /// The folder of its objects, by which its section is found, too.
    name: &'static str,
    /// Whom the client asks, where somebody has to have asked.
    asks: Option<&'static str>,
    /// The command that finds the cause.
    command: &'static str,
    /// What it says then, and never else.
    finds: &'static str,
}

const SYMPTOMS: &[Symptom] = &[
    Symptom {
        name: "times-out",
        asks: Some("8080"),
        command: "palisade flows --namespace shop --verdict denied",
        finds: "DENIED at ingress by server",
    },
    Symptom {
        name: "still-denied",
        asks: None,
        command: "palisade explain --from shop/client --to shop/server --port 8080",
        finds: "8080/TCP: denied",
    },
    Symptom {
        name: "service-hangs",
        asks: None,
        command: "palisade probe --from shop/client --to service/shop/server",
        finds: "DENIED at ingress by server",
    },
    Symptom {
        name: "no-names",
        asks: None,
        command: "palisade lint",
        finds: "shop/client may send, but not to port 53/UDP of the cluster's DNS",
    },
    Symptom {
        name: "no-effect",
        asks: None,
        command: "palisade lint",
        finds: "NetworkPolicy shop/server spec.podSelector: selects no pod; nearest to app=sever is app=server",
    },
    Symptom {
        name: "port-name",
        asks: None,
        command: "palisade lint",
        finds: "NetworkPolicy shop/server spec.ingress[0].ports[0]",
    },
    Symptom {
        name: "passes-all-the-same",
        asks: None,
        command: "palisade status",
        finds: "namespace shop",
    },
    Symptom {
        name: "somebody-else-gets-in",
        asks: None,
        command: "palisade explain --from 192.0.2.1 --to shop/server",
        finds: "no policy isolates it",
    },
];

/// In the cluster that is up, with Palisade and the images of the suite.
pub(crate) fn run() -> Result<()> {
    let run = Run::here();
    let root = shell::root()?;
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    suite::load_images(&run, &suite::programs()?)?;
    let stage = Stage {
        run: &run,
        objects: root.join(FOLDER),
    };
    let result = stage.all(&page);
    let mut delete = run.kubectl();
    delete.args(["delete", "namespace", "--ignore-not-found", SICK, WELL]);
    let ended = shell::output(&mut delete);
    result.and(ended.map(drop))
}

struct Stage<'a> {
    run: &'a Run,
    objects: std::path::PathBuf,
}

impl Stage<'_> {
    fn all(&self, page: &str) -> Result<()> {
        let pods = self.objects("pods.yaml")?;
        for namespace in [SICK, WELL] {
            self.apply(&pods, namespace)?;
        }
        for namespace in [SICK, WELL] {
            self.kubectl(&format!(
                "wait --namespace {namespace} --for=condition=Ready pod --all --timeout=120s"
            ))?;
        }
        for symptom in SYMPTOMS {
            symptom.is_on(page)?;
            let tried = self.one(symptom);
            for namespace in [SICK, WELL] {
                self.kubectl(&format!("delete networkpolicy --all -n {namespace}"))?;
                self.kubectl(&format!("annotate namespace {namespace} palisade/mode-"))?;
            }
            tried.with_context(|| format!("{PAGE}: {}", symptom.name))?;
            println!("{}: `{}` finds it", symptom.name, symptom.command);
        }
        Ok(())
    }

    fn one(&self, symptom: &Symptom) -> Result<()> {
        for (state, namespace) in [("sick", SICK), ("well", WELL)] {
            let objects = self.objects(&format!("{}/{state}.yaml", symptom.name))?;
            self.apply(&objects, namespace)?;
        }
        let end = Instant::now() + PATIENCE;
        let said = loop {
            if let Some(port) = symptom.asks {
                self.ask(SICK, port)?;
            }
            let said = self.say(symptom, SICK)?;
            if said.contains(&symptom.finds.replace(NAMESPACE, SICK)) {
                break said;
            }
            ensure!(Instant::now() < end, "the cause is not found:\n{said}");
            thread::sleep(PAUSE);
        };
        for line in said.lines().filter(|line| line.contains(SICK)).take(3) {
            println!("  {line}");
        }
        for _ in 0..LOOKS {
            if symptom.asks.is_some() {
                // Nobody listens there: it is refused, and looks alike.
                self.ask(WELL, "81")?;
            }
            let said = self.say(symptom, WELL)?;
            let found = symptom.finds.replace(NAMESPACE, WELL);
            ensure!(!said.contains(&found), "found where all is well:\n{said}");
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// What the command prints; a negative answer is one, too.
    fn say(&self, symptom: &Symptom, namespace: &str) -> Result<String> {
        let words = symptom.command.strip_prefix("palisade ");
        let words = words.context("no command of palisade")?;
        let here = |word: &str| match word {
            NAMESPACE => namespace.to_owned(),
            word => word.replace(&format!("{NAMESPACE}/"), &format!("{namespace}/")),
        };
        let words: Vec<_> = words.split(' ').map(here).collect();
        let mut palisade = self.run.palisade(&words.join(" "))?;
        let output = palisade.output().context("run palisade")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0 | 1) => Ok(text),
            _ => bail!("{}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Has the client ask the server; whether it is answered is not what is looked at.
    fn ask(&self, namespace: &str, port: &str) -> Result<()> {
        let pod = format!("get pod server -n {namespace} -o jsonpath={{.status.podIP}}");
        let address = self.kubectl(&pod)?;
        let ask =
            format!("exec -n {namespace} client -- /agnhost connect --timeout=1s {address}:{port}");
        let mut kubectl = self.run.kubectl();
        let asked = kubectl.args(ask.split_whitespace()).output();
        asked.context("run kubectl").map(drop)
    }

    fn objects(&self, file: &str) -> Result<String> {
        let file = self.objects.join(file);
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }

    fn apply(&self, objects: &str, namespace: &str) -> Result<()> {
        let objects = objects
            .replace(
                &format!("name: {NAMESPACE}\n"),
                &format!("name: {namespace}\n"),
            )
            .replace(
                &format!("namespace: {NAMESPACE}\n"),
                &format!("namespace: {namespace}\n"),
            );
        let file = self.run.write("symptom.yaml", &objects)?;
        self.kubectl(&format!("apply -f {}", file.display()))
            .map(drop)
    }

    fn kubectl(&self, words: &str) -> Result<String> {
        let mut kubectl = self.run.kubectl();
        shell::output(kubectl.args(words.split_whitespace()))
    }
}

impl Symptom {
    /// The page shows the objects' folder, the command and what it finds, under one heading.
    fn is_on(&self, page: &str) -> Result<()> {
        let Self {
            name,
            command,
            finds,
            ..
        } = self;
        let mut sections = page.split("\n## ");
        let section = sections.find(|section| section.contains(&format!("`{name}`")));
        let section = section.with_context(|| format!("{PAGE} does not name `{name}`"))?;
        let shown = format!("    $ {command}\n");
        ensure!(
            section.contains(&shown),
            "{PAGE}: {name} does not show `{command}`"
        );
        ensure!(
            section.contains(finds),
            "{PAGE}: {name} does not show `{finds}`"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_each_symptom_with_its_command() -> Result<()> {
        let page = fs::read_to_string(shell::root()?.join(PAGE))?;
        SYMPTOMS.iter().try_for_each(|symptom| symptom.is_on(&page))
    }
}
