//! The documents of a file, parsed; those that did not change are taken over from the file's last version.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
};

use serde_json::Value;
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter};

use super::lines::Text;
use crate::source::{
    Effect, Issue, Key, Object, Problem,
    convert::{Converted, convert},
};

/// Nesting that is refused: more than any manifest has, less than any stack holds.
const MAX_DEPTH: usize = 128;

/// Keyed anew by each process, so that nobody can prepare two texts of the same digest.
static DIGEST: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The length and a digest of a document's text.
type Digest = (usize, u64);

/// One document.
pub(super) struct Document {
    digest: Option<Digest>,
    objects: Vec<(Key, Arc<Object>)>,
    refused: Vec<Key>,
    issues: Vec<Issue>,
}

/// A file's documents and the objects that they define.
#[derive(Default)]
pub(super) struct Documents {
    documents: Vec<Arc<Document>>,
    objects: BTreeMap<Key, Arc<Object>>,
    repeated: Vec<Issue>,
}

impl Documents {
    /// Parses a file's text. A refused object stays as it is in `last`.
    ///
    /// # Errors
    ///
    /// When the text is neither YAML nor JSON, or an object cannot be identified: the whole file is broken.
    pub(super) fn parse(text: &str, file: &Arc<str>, last: &Self) -> Result<Self, Problem> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let documents = match json(text, file) {
            Some(documents) => documents?,
            None => yaml(text, file, last)?,
        };
        let mut objects = BTreeMap::new();
        let mut repeated = Vec::new();
        for document in &documents {
            for (key, object) in &document.objects {
                if objects.insert(key.clone(), object.clone()).is_some() {
                    repeated.push(Issue {
                        file: Some(file.clone()),
                        object: Some(key.clone()),
                        field: String::new(),
                        problem: Problem::Duplicate(file.to_string()),
                        effect: Effect::LastWins,
                    });
                }
            }
            for key in &document.refused {
                if let Some(object) = last.objects.get(key) {
                    objects.entry(key.clone()).or_insert_with(|| object.clone());
                }
            }
        }
        Ok(Self {
            documents,
            objects,
            repeated,
        })
    }

    pub(super) fn objects(&self) -> &BTreeMap<Key, Arc<Object>> {
        &self.objects
    }

    pub(super) fn issues(&self) -> impl Iterator<Item = &Issue> {
        let each = self.documents.iter().flat_map(|document| &document.issues);
        each.chain(&self.repeated)
    }
}

impl Document {
    fn new(digest: Option<Digest>, converted: Converted, file: &Arc<str>) -> Arc<Self> {
        let Converted {
            objects,
            refused,
            mut issues,
        } = converted;
        for issue in &mut issues {
            issue.file = Some(file.clone());
        }
        let objects = objects
            .into_iter()
            .map(|object| (object.key(), Arc::new(object)))
            .collect();
        Arc::new(Self {
            digest,
            objects,
            refused,
            issues,
        })
    }
}

/// A document, for whoever reads a file once.
pub(crate) struct Written {
    /// What it says.
    pub(crate) value: Value,
    /// The line on which it begins, from 1 on.
    pub(crate) line: u64,
    /// As it is written; `None` of JSON and of lists, of which whole clusters are made.
    pub(crate) text: Option<Arc<Text>>,
}

/// The documents of a text.
///
/// # Errors
///
/// When the text is neither YAML nor JSON.
pub(crate) fn values(text: &str, file: &str) -> Result<Vec<Written>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(values) = json_values(text, file) {
        let written = |value| Written {
            value,
            line: 1,
            text: None,
        };
        return Ok(values?.into_iter().map(written).collect());
    }
    let mut all = Vec::new();
    let (mut end, mut before) = (0, 0);
    for chunk in chunks(text) {
        // Markers, comments and empty lines come first.
        let idle = chunk.lines().take_while(|line| {
            let line = line.trim();
            line.is_empty() || line == "---" || line.starts_with('#')
        });
        let line = before + idle.count() as u64 + 1;
        let as_written = Arc::new(Text {
            before,
            text: chunk.to_owned(),
        });
        for value in yaml_values(chunk, &text[..end])? {
            let is_list = value.get("items").is_some();
            all.push(Written {
                value,
                line,
                text: (!is_list).then(|| as_written.clone()),
            });
        }
        end += chunk.len();
        before += chunk.lines().count() as u64;
    }
    Ok(all)
}

/// Parses JSON objects, one after the other; `None` if the text is something else. JSON is parsed so much
/// faster than YAML that nothing is kept of it.
fn json(text: &str, file: &Arc<str>) -> Option<Result<Vec<Arc<Document>>, Problem>> {
    let values = match json_values(text, file)? {
        Ok(values) => values,
        Err(problem) => return Some(Err(problem)),
    };
    let documents = values.iter().map(|value| match convert(value) {
        Ok(converted) => Ok(Document::new(None, converted, file)),
        Err(unidentified) => Err(Problem::Syntax(unidentified.to_string())),
    });
    Some(documents.collect())
}

fn json_values(text: &str, file: &str) -> Option<Result<Vec<Value>, Problem>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let values = serde_json::Deserializer::from_str(text).into_iter();
    match values.collect::<Result<Vec<Value>, _>>() {
        Ok(values) => Some(Ok(values)),
        Err(error) if file.ends_with(".json") => Some(Err(Problem::Syntax(error.to_string()))),
        // YAML may begin with a brace too.
        Err(_) => None,
    }
}

fn yaml(text: &str, file: &Arc<str>, last: &Documents) -> Result<Vec<Arc<Document>>, Problem> {
    let known: HashMap<Digest, &Arc<Document>> = last
        .documents
        .iter()
        .filter_map(|document| Some((document.digest?, document)))
        .collect();
    let mut documents = Vec::new();
    let mut before = 0;
    for chunk in chunks(text) {
        let digest = (chunk.len(), DIGEST.hash_one(chunk));
        if let Some(&document) = known.get(&digest) {
            documents.push(document.clone());
        } else {
            documents.push(Document::new(
                Some(digest),
                parse(chunk, &text[..before])?,
                file,
            ));
        }
        before += chunk.len();
    }
    Ok(documents)
}

/// Parses what lies between two document markers.
fn parse(chunk: &str, before: &str) -> Result<Converted, Problem> {
    let line = || before.lines().count() as u64;
    let mut all = Converted::default();
    for value in &yaml_values(chunk, before)? {
        let Converted {
            objects,
            refused,
            issues,
        } = convert(value).map_err(|unidentified| {
            Problem::Syntax(format!("document after line {}: {unidentified}", line()))
        })?;
        all.objects.extend(objects);
        all.refused.extend(refused);
        all.issues.extend(issues);
    }
    Ok(all)
}

fn yaml_values(chunk: &str, before: &str) -> Result<Vec<Value>, Problem> {
    let line = || before.lines().count() as u64;
    serde_saphyr::from_multiple_with_options(chunk, options()).map_err(|error| {
        let message = DefaultMessageFormatter.format_message(&error);
        let message = message.escape_debug();
        Problem::Syntax(match error.location() {
            Some(at) => format!(
                "line {}, column {}: {message}",
                line() + at.line(),
                at.column()
            ),
            None => message.to_string(),
        })
    })
}

/// How YAML is read.
pub(super) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            // A `List` may hold a whole cluster: only what multiplies is bounded.
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_documents: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        // YAML 1.2: `y`, `no` and `on` are texts, and good names of namespaces.
        strict_booleans: true,
        with_snippet: false,
    }
}

/// Cuts a text before each document marker. YAML 1.2 forbids a line that begins with one inside of any
/// scalar (production `c-forbidden`). Directives stand before the marker of the document that they are
/// of, so a text with any is left whole.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let whole = text.starts_with('%') || text.contains("\n%");
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let marker = text
            .match_indices("\n---")
            .map(|(at, _)| at + 1)
            .find(|at| {
                let after = text[at + 3..].chars().next();
                !whole && after.is_none_or(|after| after.is_ascii_whitespace())
            });
        match marker {
            Some(at) => {
                rest = Some(&text[at..]);
                Some(&text[..at])
            }
            None => Some(text),
        }
    })
}

#[cfg(test)]
mod tests {
    use palisade_policy::model::Name;

    use super::*;

    #[test]
    fn only_true_and_false_are_booleans() {
        for text in ["y", "n", "yes", "no", "on", "off", "Y", "NO"] {
            let pod = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {text}, namespace: {text}, labels: {{a: {text}}}}}"
            );
            let converted = parse(&pod, "").expect("readable");
            assert_eq!(converted.objects[0].key().name, Name::new(text, text));
        }
        let host = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true}";
        let Ok(Converted { objects, .. }) = parse(host, "") else {
            panic!("unreadable")
        };
        assert!(matches!(&objects[..], [Object::Pod(pod)] if pod.host_network));
    }

    #[test]
    fn texts_are_cut_at_markers_alone() {
        for (text, expected) in [
            ("", &[""][..]),
            ("a: 1", &["a: 1"]),
            ("---\na: 1\n---\nb: 2\n", &["---\na: 1\n", "---\nb: 2\n"]),
            ("a\n--- b\n---", &["a\n", "--- b\n", "---"]),
            ("a\n---\r\nb", &["a\n", "---\r\nb"]),
            (
                "a: |\n  x\n  ---\n  y\n---x\n----\n",
                &["a: |\n  x\n  ---\n  y\n---x\n----\n"],
            ),
            ("%YAML 1.2\n---\na\n", &["%YAML 1.2\n---\na\n"]),
            (
                "a\n...\n%YAML 1.2\n---\na\n",
                &["a\n...\n%YAML 1.2\n---\na\n"],
            ),
        ] {
            assert_eq!(chunks(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }
}
