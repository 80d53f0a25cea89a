//! Labels and label selectors.

use std::sync::Arc;

use palisade_policy::model::{Labels, Operator, Requirement, Selector};

use super::{
    Problem,
    field::{Fault, Field},
};

/// On every namespace, whatever its labels say (KEP-2161).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The labels of an object's metadata.
pub(super) fn of_metadata(metadata: Field<'_>) -> Result<Labels, Fault> {
    metadata
        .get("labels")
        .map_or_else(|| Ok(Labels::new()), texts)
}

/// The label that the namespace has, whatever its labels say.
pub(crate) fn name_label(name: &Arc<str>) -> (Arc<str>, Arc<str>) {
    (NAME_LABEL.into(), name.clone())
}

/// The labels of a namespace.
pub(super) fn of_namespace(metadata: Field<'_>, name: &Arc<str>) -> Result<Labels, Fault> {
    let mut labels = of_metadata(metadata)?;
    labels.extend([name_label(name)]);
    Ok(labels)
}

/// A map of texts. A null is the empty text, as for Go's decoder.
pub(super) fn texts(map: Field<'_>) -> Result<Labels, Fault> {
    let mut texts = Labels::new();
    for (key, value) in map.object()? {
        let text = match value.is_null() {
            true => "",
            false => map.child(key, value).text()?,
        };
        texts.insert(key.as_str().into(), text.into());
    }
    Ok(texts)
}

/// A `LabelSelector`. What `LabelSelectorAsSelector` of apimachinery refuses is refused here, and so
/// are fields it does not have: a misspelt one would otherwise select everything.
pub(super) fn selector(selector: Field<'_>) -> Result<Selector, Fault> {
    selector.only(&["matchLabels", "matchExpressions"])?;
    let mut requirements = Vec::new();
    if let Some(labels) = selector.get("matchLabels") {
        for (key, value) in texts(labels)? {
            let at = labels.child(&key, labels.value);
            check(at, &key, is_key, "a label key")?;
            check(at, &value, is_value, "a label value")?;
            let operator = Operator::In(vec![value]);
            requirements.push(Requirement { key, operator });
        }
    }
    if let Some(expressions) = selector.get("matchExpressions") {
        for expression in expressions.list()? {
            requirements.push(requirement(expression)?);
        }
    }
    Ok(Selector::new(requirements))
}

fn requirement(expression: Field<'_>) -> Result<Requirement, Fault> {
    expression.only(&["key", "operator", "values"])?;
    let key = expression.required("key")?;
    let key = expression.child("key", key);
    check(key, key.text()?, is_key, "a label key")?;
    let mut values = Vec::new();
    if let Some(list) = expression.get("values") {
        for value in list.list()? {
            check(value, value.text()?, is_value, "a label value")?;
            values.push(Arc::from(value.text()?));
        }
    }
    let operator = expression.required("operator")?;
    let operator = expression.child("operator", operator);
    let operator = match (operator.text()?, values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        ("In" | "NotIn", true) => {
            return Err(expression.fault(Problem::Conflict("In and NotIn need values")));
        }
        ("Exists" | "DoesNotExist", false) => {
            return Err(
                expression.fault(Problem::Conflict("Exists and DoesNotExist take no values"))
            );
        }
        (other, _) => {
            return Err(operator.invalid(other, "one of In, NotIn, Exists and DoesNotExist"));
        }
    };
    let key = key.text()?.into();
    Ok(Requirement { key, operator })
}

fn check(
    at: Field<'_>,
    text: &str,
    holds: fn(&str) -> bool,
    what: &'static str,
) -> Result<(), Fault> {
    if holds(text) {
        Ok(())
    } else {
        Err(at.invalid(text, what))
    }
}

/// `IsQualifiedName` of apimachinery: a name of up to 63 characters, and perhaps a DNS subdomain of up
/// to 253 with a slash before it.
fn is_key(text: &str) -> bool {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let subdomain = |prefix: &str| {
        prefix.len() <= 253
            && prefix.split('.').all(|part| {
                is_name(
                    part,
                    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(),
                    b"-",
                )
            })
    };
    !name.is_empty() && is_value(name) && prefix.is_none_or(subdomain)
}

/// `IsValidLabelValue` of apimachinery.
fn is_value(text: &str) -> bool {
    text.is_empty()
        || (text.len() <= 63 && is_name(text, |byte| byte.is_ascii_alphanumeric(), b"-_."))
}

/// Not empty, begins and ends with one of the letters, has only letters and others.
fn is_name(text: &str, letter: fn(u8) -> bool, others: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    letter(first)
        && letter(last)
        && bytes
            .iter()
            .all(|byte| letter(*byte) || others.contains(byte))
}
