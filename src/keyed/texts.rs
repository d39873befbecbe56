//! The texts of keys for people: hashes, unless a builder shows their text.
//!
//! A key may be a customer, a token or a host that a request has named. So it is redacted by
//! default. The text is then a hash with a salt of the process, which is the same in all layers and
//! has no meaning outside. The text is made when a key arrives, and never while a call is decided.

use std::{
    collections::BTreeSet,
    fmt,
    hash::Hash,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{ambient::chance, observe::OTHER_KEYS};

/// The way in which the keys of a layer are shown.
pub(crate) struct KeyTexts<K> {
    redact: fn(&K) -> u32,
    show: Option<Show<K>>,
    labels: Option<Arc<Labels>>,
}

type Show<K> = Arc<dyn Fn(&K) -> String + Send + Sync>;

/// A key as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyText {
    Redacted(u32),
    Shown(Box<str>),
}

/// The labels that the keys of one layer have in metrics. There are never more than `max`, counting
/// those of earlier keys, since a label that a metric has once shown is kept.
#[derive(Debug)]
struct Labels {
    max: usize,
    given: Mutex<BTreeSet<&'static str>>,
}

impl<K: Hash> KeyTexts<K> {
    pub(crate) fn redacted() -> Self {
        Self {
            redact: chance::salted,
            show: None,
            labels: None,
        }
    }
}

impl<K> KeyTexts<K> {
    pub(crate) fn show(&mut self, show: impl Fn(&K) -> String + Send + Sync + 'static) {
        self.show = Some(Arc::new(show));
    }

    /// Sets labels in metrics, for so many keys.
    pub(crate) fn labelled(mut self, max: Option<usize>) -> Self {
        let labels = |max| Labels {
            max,
            given: Mutex::default(),
        };
        self.labels = max.map(|max| Arc::new(labels(max)));
        self
    }

    /// Returns the key's text. Redacts the key if the closure panics.
    pub(crate) fn text(&self, key: &K) -> KeyText {
        let shown = self.show.as_ref().and_then(|show| {
            let shown = catch_unwind(AssertUnwindSafe(|| show(key)));
            shown.ok().map(shortened)
        });
        shown.map_or_else(|| KeyText::Redacted((self.redact)(key)), KeyText::Shown)
    }

    pub(crate) fn has_labels(&self) -> bool {
        self.labels.is_some()
    }

    /// Returns the label of a key, or the common label of others if there are too many.
    pub(crate) fn label(&self, text: &KeyText) -> &'static str {
        let label = self.labels.as_ref().map(|labels| labels.of(text));
        label.unwrap_or(OTHER_KEYS)
    }
}

impl Labels {
    fn of(&self, text: &KeyText) -> &'static str {
        let text = text.to_string();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = given.get(text.as_str()) {
            return known;
        }
        let label = (given.len() < self.max).then(|| kept(text)).flatten();
        given.extend(label);
        label.unwrap_or(OTHER_KEYS)
    }
}

/// Keeps a text for the lifetime of the process, once. `None` if there are too many.
fn kept(text: String) -> Option<&'static str> {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.get(text.as_str()) {
        return Some(known);
    }
    if kept.len() >= MAX_KEPT {
        return None;
    }
    let text: &'static str = String::leak(text);
    kept.insert(text);
    Some(text)
}

/// Cuts a text to a readable length, because a key may have any length.
fn shortened(mut text: String) -> Box<str> {
    if text.len() > MAX_BYTES {
        let end = (0..=MAX_BYTES)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text.into()
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redacted(hash) => write!(f, "#{hash:08x}"),
            Self::Shown(text) => f.write_str(text),
        }
    }
}

impl<K> Clone for KeyTexts<K> {
    fn clone(&self) -> Self {
        Self {
            redact: self.redact,
            show: self.show.clone(),
            labels: self.labels.clone(),
        }
    }
}

impl<K> fmt::Debug for KeyTexts<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTexts")
            .field("are_shown", &self.show.is_some())
            .field("labels", &self.labels)
            .finish()
    }
}

/// The maximum length of a key that is shown.
const MAX_BYTES: usize = 128;
/// The maximum number of labels of a process.
const MAX_KEPT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_redacted_unless_it_is_shown() {
        let mut texts = KeyTexts::<String>::redacted();
        let key = "acme".to_owned();
        let redacted = texts.text(&key).to_string();
        assert!(
            redacted.starts_with('#') && redacted.len() == 9,
            "{redacted}"
        );
        assert_eq!(redacted, KeyTexts::redacted().text(&key).to_string());
        assert_ne!(redacted, texts.text(&"other".to_owned()).to_string());
        texts.show(Clone::clone);
        assert_eq!(texts.text(&key).to_string(), "acme");
    }

    #[test]
    fn a_text_is_bounded_and_a_panic_redacts() {
        let mut texts = KeyTexts::<u32>::redacted();
        texts.show(|key| {
            if *key == 0 {
                panic!("on purpose")
            } else {
                "ä".repeat(100)
            }
        });
        assert!(texts.text(&0).to_string().starts_with('#'));
        let long = texts.text(&1).to_string();
        assert_eq!((long.chars().count(), long.ends_with('…')), (65, true));
    }

    #[test]
    fn more_keys_than_labels_share_one() {
        let mut texts = KeyTexts::<u32>::redacted().labelled(Some(2));
        texts.show(ToString::to_string);
        let label = |key| texts.label(&texts.text(&key));
        assert_eq!([1, 2, 3, 1].map(label), ["1", "2", OTHER_KEYS, "1"]);
    }
}
