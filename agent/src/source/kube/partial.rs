//! Objects of which only what matters here is decoded. A pod as the API server sends it is mostly managed fields,
//! containers and conditions; what is passed over here costs neither memory nor a walk by whoever reads on.

use std::{borrow::Cow, fmt, marker::PhantomData};

use ::kube::{Resource, core::ObjectMeta};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use crate::source::Kind;

/// A kind that is watched.
pub(super) trait Watched: Send + Sync + Unpin + 'static {
    /// Which.
    const KIND: Kind;
    /// Its API group; empty for the oldest.
    const GROUP: &'static str = "";
    /// How it is called in paths.
    const PLURAL: &'static str;
    /// Whether the server is asked for metadata alone.
    const METADATA: bool = false;
    /// What is decoded.
    const SHAPE: Shape;
}

/// What is decoded of a value. Where a value is not what the shape expects, it is decoded whole, so that whoever
/// converts it finds what is wrong with it.
pub(super) enum Shape {
    /// All of it.
    Whole,
    /// Of an object these fields.
    Fields(&'static [(&'static str, Shape)]),
    /// Of each item of a list.
    Items(&'static Shape),
}

/// An object of the kind `W`, as far as its shape goes.
pub(super) struct Partial<W> {
    pub(super) value: Value,
    /// What the watcher reads: the version, and the name for its messages.
    metadata: ObjectMeta,
    kind: PhantomData<W>,
}

impl<W> Clone for Partial<W> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            metadata: self.metadata.clone(),
            kind: PhantomData,
        }
    }
}

impl<W> fmt::Debug for Partial<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<'de, W: Watched> Deserialize<'de> for Partial<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = W::SHAPE.deserialize(deserializer)?;
        let text = |key| Some(value.get("metadata")?.get(key)?.as_str()?.to_owned());
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self {
            value,
            metadata,
            kind: PhantomData,
        })
    }
}

impl<W: Watched> Resource for Partial<W> {
    type DynamicType = ();
    type Scope = ();

    fn kind((): &()) -> Cow<'_, str> {
        W::KIND.name().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        W::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        W::PLURAL.into()
    }

    fn metadata_api() -> bool {
        W::METADATA
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<'de> DeserializeSeed<'de> for &Shape {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Shape {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("no finite number"))?;
        Ok(number.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let shape = match self {
            Shape::Items(shape) => shape,
            _ => &Shape::Whole,
        };
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(shape)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        if let Shape::Fields(known) = self {
            while let Some(field) = object.next_key_seed(Known(known))? {
                match field {
                    Some((name, shape)) => {
                        fields.insert((*name).to_owned(), object.next_value_seed(shape)?);
                    }
                    None => {
                        object.next_value::<IgnoredAny>()?;
                    }
                }
            }
        } else {
            while let Some(name) = object.next_key()? {
                fields.insert(name, object.next_value_seed(&Shape::Whole)?);
            }
        }
        Ok(fields.into())
    }
}

/// The name of a field, looked up among these.
struct Known(&'static [(&'static str, Shape)]);

impl<'de> DeserializeSeed<'de> for Known {
    type Value = Option<&'static (&'static str, Shape)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Known {
    type Value = Option<&'static (&'static str, Shape)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(known, _)| *known == name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::kube::kinds::Pods;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let pod = json!({
            "apiVersion": "v1",
            "metadata": {
                "name": "a", "namespace": "x", "resourceVersion": "7", "labels": {"k": "v"},
                "managedFields": [{"manager": "kubelet"}], "annotations": {"a": "b", "kubernetes.io/config.hash": "h"},
            },
            "spec": {
                "nodeName": "n",
                "containers": [{"image": "i", "ports": [{"name": "p", "containerPort": 80, "hostPort": 1}]}],
                "volumes": [],
            },
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{}]},
        });
        let partial: Partial<Pods> = serde_json::from_str(&pod.to_string()).expect("any JSON");
        assert_eq!(
            partial.value,
            json!({
                "metadata": {
                    "name": "a", "namespace": "x", "resourceVersion": "7", "labels": {"k": "v"},
                    "annotations": {"kubernetes.io/config.hash": "h"},
                },
                "spec": {
                    "nodeName": "n",
                    "containers": [{"ports": [{"name": "p", "containerPort": 80}]}],
                },
                "status": {"podIPs": [{"ip": "10.0.0.1"}]},
            })
        );
        assert_eq!(partial.meta().resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn what_has_another_type_is_kept_as_it_is() {
        let pod = json!({
            "metadata": {"name": "a", "labels": [1, 2.5, null, true]},
            "spec": [{"image": "i"}],
            "status": -7,
        });
        let partial: Partial<Pods> = serde_json::from_str(&pod.to_string()).expect("any JSON");
        assert_eq!(partial.value, pod);
    }
}
