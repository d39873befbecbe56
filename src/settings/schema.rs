//! The JSON schema of values with a unit, and of fields that can be off.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::settings::{HumanDuration, HumanRate, HumanWindow, OrOff, Share};

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A time with its unit: ns, us, ms, s, m, h or d.",
            "pattern": format!("^{DURATION}$"),
            "examples": ["250ms", "1.5s", "1h 30m"],
        })
    }
}

impl JsonSchema for HumanRate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "How many in how long.",
            "pattern": format!(r"^\s*[0-9]+\s*/\s*({UNIT}|{DURATION})\s*$"),
            "examples": ["100/s", "1000/h", "500/10s"],
        })
    }
}

impl JsonSchema for HumanWindow {
    fn schema_name() -> Cow<'static, str> {
        "Window".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A time, or a number of calls.",
            "pattern": format!(r"^({DURATION}|\s*[0-9]+\s*calls\s*)$"),
            "examples": ["10s", "100 calls"],
        })
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "From nothing to all: in percent, or as a number up to 1.",
            "anyOf": [
                { "type": "string", "pattern": r"^\s*[0-9]*\.?[0-9]+\s*%?\s*$" },
                { "type": "number", "minimum": 0, "maximum": 1 },
            ],
            "examples": ["50%", 0.5],
        })
    }
}

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}OrOff", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                generator.subschema_for::<T>(),
                { "const": "off" },
            ],
        })
    }
}

/// Adjusts the schema of a struct to its fields as they are written. An empty value is not allowed.
/// For the fields in this list, separated by spaces, `"off"` is. The list is one text because
/// schemars' attribute takes no list of texts.
pub(super) fn written(can_be_off: &'static str) -> impl Fn(&mut Schema) {
    move |schema| {
        let properties = schema.get_mut("properties");
        let properties = properties.and_then(|properties| properties.as_object_mut());
        for (field, property) in properties.into_iter().flatten() {
            let types = property.get_mut("type");
            if let Some(types) = types.and_then(|types| types.as_array_mut()) {
                types.retain(|one| one != "null");
            }
            let shapes = property.get_mut("anyOf");
            if let Some(shapes) = shapes.and_then(|shapes| shapes.as_array_mut()) {
                shapes.retain(|shape| shape["type"] != "null");
                // A type that can be off by itself.
                if let [only] = &mut shapes[..] {
                    if only.get("anyOf").is_some() {
                        *shapes = only["anyOf"].take().as_array().cloned().unwrap_or_default();
                    }
                }
            }
            if can_be_off.split(' ').any(|name| name == field) {
                let mut or_off = json_schema!({});
                for about in ["description", "default"] {
                    let about = property
                        .as_object_mut()
                        .and_then(|one| one.remove_entry(about));
                    or_off.ensure_object().extend(about);
                }
                let shapes = json_schema!({ "anyOf": [property.take(), { "const": "off" }] });
                or_off
                    .ensure_object()
                    .extend(shapes.to_value().as_object().cloned().into_iter().flatten());
                *property = or_off.to_value();
            }
        }
    }
}

const UNIT: &str = "(ns|us|µs|ms|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)";
const DURATION: &str =
    r"(\s*[0-9]+(\.[0-9]+)?\s*(ns|us|µs|ms|s|sec|seconds?|m|min|minutes?|h|hours?|d|days?))+\s*";
