//! The page as JSON. Instances are keyed by their numbers, so that a difference is small.

use serde::Serialize;
use serde_json::{Map, Value, json, to_value};

use crate::{
    ambient::clock::common_now,
    observe::{BUCKETS, Instance, Registry, State, origin, rules},
};

/// Returns the registry's model at this moment.
pub(super) fn model(registry: &Registry, title: Option<&str>) -> Value {
    let (numbers, aged) = registry.aged();
    let instances = numbers.into_iter().zip(&aged);
    let instances: Map<_, _> = instances
        .map(|(id, (one, _))| (id.to_string(), instance(one)))
        .collect();
    let advice = rules::advise(&aged).into_iter().map(|advice| {
        json!({
            "layer": advice.layer,
            "name": advice.name,
            "setting": advice.setting,
            "text": advice.to_string(),
        })
    });
    let mut model = json!({
        "version": 1,
        "advice": advice.collect::<Vec<_>>(),
        "at": seconds(common_now()),
        "buckets": BUCKETS,
        "instances": instances,
    });
    if let (Value::Object(model), Some(title)) = (&mut model, title) {
        model.insert("title".into(), title.into());
    }
    without_nulls(&mut model);
    model
}

fn instance(one: &Instance) -> Value {
    let config: Map<_, _> = one
        .config
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    let histograms = one.histograms.iter().map(|histogram| {
        json!({
            "metric": histogram.metric,
            "labels": histogram.labels,
            "counts": histogram.counts,
            "sum": histogram.sum(),
        })
    });
    let changed = origin::of(one.layer, one.name).map(|origin| {
        let file = origin.file.filter(|_| origin.by_file);
        json!({
            "at": seconds(origin.moment),
            "what": origin.what,
            "file": origin.file,
            "by_file": file,
        })
    });
    json!({
        "layer": one.layer,
        "name": one.name,
        "totals": value(&one.totals),
        "config": config,
        "state": state(&one.state),
        "histograms": histograms.collect::<Vec<_>>(),
        "keys": value(&one.keys),
        "changed": changed,
    })
}

/// Returns the serialized state, without the elapsed times that would differ in each snapshot.
fn state(state: &State) -> Value {
    let mut shown = value(state);
    if let State::CircuitBreaker(circuits) = state {
        let recent = circuits.recent.iter().map(|change| {
            let transition = &change.transition;
            json!({
                "key": change.key,
                "from": transition.from,
                "to": transition.to,
                "cause": transition.cause,
                "calls": transition.counts.total(),
                "failures": transition.counts.failures,
                "threshold": change.threshold,
                "at": seconds(change.moment),
                "reopens": change.open_for,
                "open_for": transition.open_for.map(|time| time.as_secs_f64()),
                "rejected": transition.rejected,
            })
        });
        shown["circuit_breaker"]["recent"] = recent.collect();
    }
    shown
}

fn value(value: &impl Serialize) -> Value {
    // All types of this crate can be serialized.
    to_value(value).unwrap_or_default()
}

/// Returns the seconds, to a thousandth.
#[expect(clippy::cast_precision_loss, reason = "a number for people to read")]
fn seconds(nanos: u64) -> f64 {
    (nanos / 1_000_000) as f64 / 1e3
}

/// Removes nulls: in a difference a null means removal.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Returns the JSON merge patch (RFC 7386) that turns `old` into `new`. `None` if they are equal.
pub(super) fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        let changed = match before.get(key) {
            Some(known) => difference(known, value),
            None => Some(value.clone()),
        };
        if let Some(changed) = changed {
            patch.insert(key.clone(), changed);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Applies a patch as RFC 7386 defines it.
    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let Value::Object(target) = target else {
            return;
        };
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..4).prop_map(Value::from),
            "[ab]".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_difference_makes_the_old_the_new(old in values(), new in values()) {
            let mut merged = old.clone();
            if let Some(patch) = difference(&old, &new) {
                merge(&mut merged, &patch);
            } else {
                prop_assert_eq!(&old, &new);
            }
            // Also for an empty object that replaces another value, as RFC 7386 defines it.
            prop_assert_eq!(merged, new);
        }
    }

    #[test]
    fn what_has_not_changed_is_left_out() {
        let old = json!({"at": 1, "instances": {"1": {"calls": 1, "name": "a"}, "2": {}}});
        let new = json!({"at": 2, "instances": {"1": {"calls": 2, "name": "a"}}});
        let expected = json!({"at": 2, "instances": {"1": {"calls": 2}, "2": null}});
        assert_eq!(difference(&old, &new), Some(expected));
        assert_eq!(difference(&new, &new), None);
    }
}
