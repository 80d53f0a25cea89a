//! `palisade generate`.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use ipnet::IpNet;
use palisade_policy::{
    generate::{Generated, generate},
    model::Selector,
};

use super::{Exit, complain, objects::Source, print};
use crate::{
    config::Switch,
    expect::{Parties, parties},
    explain::Port,
    generate::{
        manifest::{self, File},
        map, options, recorded,
        template::{Blanks, Template, fill},
    },
    objects::Objects,
    recorded::Record,
    source::convert::address,
};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("of").required(true).args(["flows", "map", "template"]))]
pub(super) struct Args {
    /// Recorded traffic, as `palisade flows -o json` prints it: what passed is allowed. May be given again.
    #[arg(long, value_name = "FILE")]
    flows: Vec<PathBuf>,
    /// A service map: a YAML list of `from`, `to` and `ports`.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// A classic case.
    #[arg(long, value_enum, requires = "namespace")]
    template: Option<Template>,
    #[command(flatten)]
    source: Source,
    /// A namespace that gets policies; may be given again. Without it all that take part, but the cluster's own.
    #[arg(short, long, value_name = "NS")]
    namespace: Vec<String>,
    /// Whether pods that send anything may ask the cluster's DNS, recorded or not.
    #[arg(long, value_enum, default_value_t)]
    dns: Switch,
    /// Whether the rest of the namespaces is denied.
    #[arg(long, value_enum, default_value_t)]
    default_deny: Switch,
    /// Of a template: labels of the pods that it is for, as key=value,key=value; without it all of the namespace.
    #[arg(long, value_name = "LABELS", requires = "template")]
    pods: Option<String>,
    /// Of a template: the other end, as NS/* or NS/key=value,key=value.
    #[arg(long, value_name = "NS/LABELS", requires = "template", value_parser = peer)]
    peer: Option<(Arc<str>, Selector)>,
    /// Of a template: the addresses of the other end.
    #[arg(long, value_name = "CIDR", requires = "template", value_parser = cidr)]
    cidr: Option<IpNet>,
    /// Of a template: a port; may be given again.
    #[arg(long, value_name = "PORT/PROTO", requires = "template")]
    port: Vec<Port>,
    /// In which form.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The folder into which files are written, instead of standard output.
    #[arg(long, value_name = "DIR", required_if_eq("output", "kustomize"))]
    output_dir: Option<PathBuf>,
}

/// In which form policies are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Manifests, in the order in which they are safe to apply.
    #[default]
    Yaml,
    /// A file for each, and a kustomization that names them in that order.
    Kustomize,
    /// A template of a chart.
    Helm,
}

fn peer(text: &str) -> Result<(Arc<str>, Selector), String> {
    match parties(text)? {
        Parties::Pods {
            namespace,
            selector,
        } => Ok((namespace, selector)),
        _ => Err("expected NS/* or NS/key=value,key=value".to_owned()),
    }
}

fn cidr(text: &str) -> Result<IpNet, String> {
    address::cidr(text).ok_or_else(|| "expected ADDRESS/LENGTH".to_owned())
}

pub(super) fn run(args: &Args) -> Exit {
    let written = make(args).and_then(|(generated, exit)| {
        write(args, &generated)?;
        Ok(exit)
    });
    written.unwrap_or_else(|error| {
        complain(format_args!("{error:#}"));
        match error.is::<Misused>() {
            true => Exit::Usage,
            false => Exit::Unknown,
        }
    })
}

/// What was asked cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misused(String);

/// The policies, and whether they say all that was asked for.
fn make(args: &Args) -> Result<(Vec<Generated>, Exit)> {
    if let Some(template) = args.template {
        return Ok((filled(args, template)?, Exit::Yes));
    }
    let mut exit = Exit::Yes;
    let (links, objects) = match &args.map {
        Some(path) => {
            // Whoever names pods by labels needs nobody to know them.
            let objects = match args.source.is_given() {
                true => args.source.load_whole()?,
                false => Objects::default(),
            };
            let failed = || format!("while reading {}", path.display());
            let text = fs::read_to_string(path).with_context(failed)?;
            let links = map::links(&text, &objects);
            let links = links.map_err(|error| Misused(format!("{}: {error}", path.display())))?;
            (links, objects)
        }
        None => {
            let objects = args.source.load_whole()?;
            let record = Record::read(&args.flows, &objects)?;
            if record.strangers > 0 {
                complain(format_args!(
                    "{} of {} flows are of pods that are not known: they are left out",
                    record.strangers, record.read
                ));
                exit = Exit::No;
            }
            let wanted = recorded(&record, &objects);
            for left_out in &wanted.left_out {
                complain(format_args!("left out: {left_out}"));
                exit = Exit::No;
            }
            (wanted.links, objects)
        }
    };
    let mut options = options(&links, &objects, &args.namespace, args.dns == Switch::On);
    options.default_deny = args.default_deny == Switch::On;
    Ok((generate(&links, &options), exit))
}

fn filled(args: &Args, template: Template) -> Result<Vec<Generated>, Misused> {
    let [namespace] = &args.namespace[..] else {
        return Err(Misused("a template is for one namespace".to_owned()));
    };
    let pods = match &args.pods {
        None => Selector::default(),
        Some(labels) => match parties(&format!("{namespace}/{labels}")) {
            Ok(Parties::Pods { selector, .. }) => selector,
            _ => {
                let expected = "--pods: expected labels as key=value,key=value";
                return Err(Misused(expected.to_owned()));
            }
        },
    };
    let ports = args.port.iter().map(|port| (port.protocol, port.number));
    let blanks = Blanks {
        namespace: namespace.as_str().into(),
        pods,
        peer: args.peer.clone(),
        block: args.cidr,
        ports: ports.collect(),
    };
    fill(template, &blanks).map_err(|missing| Misused(missing.to_owned()))
}

fn write(args: &Args, generated: &[Generated]) -> Result<()> {
    let files: Vec<File> = match args.output {
        Output::Yaml => vec![(
            "networkpolicies.yaml".to_owned(),
            manifest::yaml(generated)?,
        )],
        Output::Kustomize => manifest::kustomize(generated)?,
        Output::Helm => vec![(
            "networkpolicies.yaml".to_owned(),
            manifest::helm(generated)?,
        )],
    };
    let Some(folder) = &args.output_dir else {
        files.iter().for_each(|(_, text)| print(text));
        return Ok(());
    };
    let failed = || format!("while writing to {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    for (name, text) in files {
        fs::write(folder.join(&name), text).with_context(failed)?;
    }
    Ok(())
}
