//! Cases of the corpora become labs in which, with nobody to enforce their policies, everybody reaches
//! everybody, by pod address and through Services.

use std::error::Error;

use palisade_tests::{
    corpus::{Case, Cluster, Corpus, Placement},
    lab::{Cni, Lab},
    manifest::Manifests,
    probe::{Check, Patience},
    skip_without_root,
};

type Result = std::result::Result<(), Box<dyn Error>>;

fn case(corpus: Corpus, name: &str) -> anyhow::Result<Case> {
    let mut cases = corpus.cases()?.into_iter();
    let case = cases.find(|case| case.name.contains(name));
    case.ok_or_else(|| anyhow::anyhow!("no case {name}"))
}

/// The checks of a step, with every cell allowed.
fn open(case: &Case, step: usize, family: u8) -> Vec<Check> {
    let probes = case.steps[step].probes.iter();
    let mut checks: Vec<_> = probes.map(|probe| probe.check(family)).collect();
    let rows = checks
        .iter_mut()
        .flat_map(|check| check.expected.values_mut());
    rows.flat_map(|row| row.values_mut())
        .for_each(|cell| *cell = true);
    checks
}

#[test]
fn cases_become_labs() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    for cni in [Cni::Ptp, Cni::Bridge { netfilter: true }] {
        for (corpus, name) in [
            (Corpus::Cyclonus, "Create/delete namespace"),
            (Corpus::E2e, "default-deny-all' policy [3x3]"),
            (Corpus::E2e, "egress access on one named port [minimal]"),
        ] {
            let case = case(corpus, name)?;
            let placement = Placement::of(&case, 2, cni)?;
            let mut lab = Lab::new(&placement.plan())?;
            let mut cluster = Cluster::new(&case, placement, 4)?;
            for (number, step) in case.steps.iter().enumerate() {
                cluster.apply(step)?;
                cluster.populate(&mut lab)?;
                let checks = [4, 6].map(|family| open(&case, number, family)).concat();
                lab.expect(&checks, Patience::default())?;
                lab.expect_at(&checks, Patience::default(), &|pod, check| {
                    cluster.service_address(pod, check.family)
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_folder_holds_the_objects_of_the_step() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    let case = case(Corpus::Cyclonus, "Create/delete namespace")?;
    let placement = Placement::of(&case, 1, Cni::Ptp)?;
    let lab = Lab::new(&placement.plan())?;
    let mut cluster = Cluster::new(&case, placement, 4)?;
    let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
    let mut changes = Vec::new();
    for step in &case.steps {
        cluster.apply(step)?;
        changes.push(manifests.sync(&cluster.objects())?);
        let files = std::fs::read_dir(manifests.folder())?.count();
        assert_eq!(files, cluster.objects().len());
    }
    // Node, namespaces, pods, Services, policy; then a namespace with two pods comes and goes.
    assert_eq!(changes, [1 + 3 + 9 + 9 + 1, 1 + 2 + 2, 1 + 2 + 2]);
    Ok(())
}
