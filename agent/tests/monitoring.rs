//! The alerts and the dashboard of the chart, and the pages that alerts lead to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The alerts, by name.
fn alerts() -> BTreeMap<String, Value> {
    let rules = yaml("deploy/helm/palisade/monitoring/alerts.yaml");
    let groups = list(&rules["groups"]).iter();
    let rules = groups.flat_map(|group| list(&group["rules"]));
    let named = rules.map(|rule| {
        let name = rule["alert"].as_str().expect("a name");
        (name.to_owned(), rule.clone())
    });
    named.collect()
}

#[test]
fn every_alert_leads_to_its_runbook_and_every_runbook_has_its_alert() {
    let (alerts, overview) = (alerts(), read("docs/monitoring.md"));
    for (name, alert) in &alerts {
        let page = format!("docs/runbooks/{name}.md");
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        let listed = format!("| [{name}](runbooks/{name}.md) | {severity} |");
        assert!(
            overview.contains(&listed),
            "docs/monitoring.md: no {listed}"
        );
        assert_eq!(alert["annotations"]["runbook_url"], page.as_str());
        assert!(alert["annotations"]["summary"].is_string(), "{name}");
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}"
        );
        let text = read(&page);
        assert!(text.starts_with(&format!("# {name}\n")), "{page}");
        for part in ["**Means** ", "**At stake**", "\n## Look\n", "\n## Do\n"] {
            assert!(text.contains(part), "{page}: no {part:?}");
        }
    }
    let pages = fs::read_dir(at("docs/runbooks")).expect("docs/runbooks");
    let pages: BTreeSet<_> = pages
        .map(|page| page.expect("a page").path())
        .filter_map(|page| Some(page.file_stem()?.to_str()?.to_owned()))
        .collect();
    assert_eq!(pages, alerts.into_keys().collect());
}

#[test]
fn every_alert_has_a_case_in_which_it_is_raised_and_one_in_which_it_is_not() {
    let tests = yaml("deploy/monitoring/alerts.test.yaml");
    let cases = list(&tests["tests"]).iter();
    let cases: Vec<_> = cases
        .flat_map(|test| list(&test["alert_rule_test"]))
        .collect();
    for name in alerts().into_keys() {
        let raised: BTreeSet<_> = cases
            .iter()
            .filter(|case| case["alertname"] == name.as_str())
            .map(|case| !list(&case["exp_alerts"]).is_empty())
            .collect();
        assert_eq!(raised, [false, true].into(), "{name}");
    }
}

#[test]
fn alerts_and_dashboard_name_metrics_that_are_documented() {
    let documented: BTreeSet<_> = metrics(&read("docs/api.md"));
    for file in [
        "deploy/helm/palisade/monitoring/alerts.yaml",
        "deploy/helm/palisade/monitoring/dashboard.json",
        "deploy/monitoring/alerts.test.yaml",
        "docs/monitoring.md",
    ] {
        let named = metrics(&read(file));
        assert!(!named.is_empty(), "{file}");
        let unknown: Vec<_> = named.difference(&documented).collect();
        assert_eq!(unknown, [""; 0], "{file}");
    }
}

/// The names of metrics in a text, without what a histogram adds.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| word.starts_with("palisade_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

#[test]
fn every_panel_asks_the_chosen_source_for_the_chosen_nodes() {
    let text = read("deploy/helm/palisade/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let variables: Vec<_> = list(&dashboard["templating"]["list"])
        .iter()
        .map(|variable| &variable["name"])
        .collect();
    assert_eq!(variables, ["DS_PROMETHEUS", "namespace", "node"]);
    let panels: Vec<_> = list(&dashboard["panels"])
        .iter()
        .filter(|panel| panel["type"] != "row")
        .collect();
    assert!(panels.len() > 20);
    for panel in panels {
        for target in list(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${DS_PROMETHEUS}", "{target}");
            let query = target["expr"].as_str().expect("a query");
            let (opened, chosen) = (
                query.matches('{').count(),
                query
                    .matches(r#"namespace=~"$namespace", node=~"$node"}"#)
                    .count(),
            );
            assert!(opened > 0 && opened == chosen, "{query}");
        }
        assert!(!list(&panel["targets"]).is_empty(), "{panel}");
    }
}
