//! The fields that a text has written, as opposed to defaults.
//!
//! All fields have defaults, so a text that was cut off reads like a whole one, with defaults for
//! the missing fields. Only a comparison with the fields of the text before can tell the two apart.

use std::{cell::RefCell, collections::BTreeSet, fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

/// The fields that were written. Empty for settings that were not read from a text. Not a setting
/// itself: any two values are equal.
#[derive(Clone, Default)]
pub(super) struct Written(Option<Arc<Fields>>);

#[derive(Debug, Default)]
struct Fields {
    /// All fields, by path: `retry.attempts`.
    all: BTreeSet<String>,
    /// The fields that have fields themselves, and are not `"off"`.
    groups: BTreeSet<String>,
}

impl Written {
    /// Returns the first field that `before` has, and this lacks though it should have it.
    /// `may_leave_out` tells by its path whether it may be missing.
    pub(super) fn lost_since(
        &self,
        before: &Self,
        may_leave_out: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let (before, now) = (before.0.as_ref()?, self.0.as_ref()?);
        let mut lost = before.all.difference(&now.all);
        lost.find(|path| now.lacks(path) && !may_leave_out(path))
            .cloned()
    }
}

impl Written {
    /// Returns whether a field was written.
    #[cfg(feature = "http")]
    pub(super) fn has(&self, path: &str) -> bool {
        self.0
            .as_ref()
            .is_some_and(|fields| fields.all.contains(path))
    }
}

impl Fields {
    /// Returns whether a field is missing. A field of a group that is now `"off"` is not.
    fn lacks(&self, path: &str) -> bool {
        if self.all.contains(path) {
            return false;
        }
        match path.rsplit_once('.') {
            _ if path == "partial" || path.ends_with(".partial") => false,
            Some((group, _)) if self.all.contains(group) => self.groups.contains(group),
            Some((group, _)) => self.lacks(group),
            None => true,
        }
    }
}

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.0.iter().flat_map(|fields| &fields.all);
        f.debug_set().entries(fields).finish()
    }
}

/// Reads settings by `read`, and notes which fields are present, also those of its parts. The
/// parts' own notes stay empty.
pub(super) fn noted<'de, T, D>(
    deserializer: D,
    read: impl FnOnce(Noting<D>) -> Result<T, D::Error>,
) -> Result<(T, Written), D::Error>
where
    D: Deserializer<'de>,
{
    if NOTES.with_borrow(Option::is_some) {
        // For a part, `NotedMap` notes the fields.
        let read = read(Noting {
            deserializer,
            notes: false,
        });
        return Ok((read?, Written::default()));
    }
    /// A guard that ends the notes, also if the format's code panics.
    struct NotesGuard;

    impl Drop for NotesGuard {
        fn drop(&mut self) {
            NOTES.set(None);
        }
    }

    let ended = NotesGuard;
    NOTES.set(Some(Notes::default()));
    let read = read(Noting {
        deserializer,
        notes: true,
    });
    let notes = NOTES.take().unwrap_or_default();
    drop(ended);
    Ok((read?, Written(Some(Arc::new(notes.fields)))))
}

/// The notes so far on the settings that this thread reads.
#[derive(Default)]
struct Notes {
    /// The current path.
    path: Vec<String>,
    fields: Fields,
}

thread_local! {
    static NOTES: RefCell<Option<Notes>> = const { RefCell::new(None) };
}

/// A deserializer that notes the fields of a struct.
pub(super) struct Noting<D> {
    deserializer: D,
    notes: bool,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Noting<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        if self.notes {
            let visitor = NotingVisitor(visitor);
            self.deserializer.deserialize_struct(name, fields, visitor)
        } else {
            self.deserializer.deserialize_struct(name, fields, visitor)
        }
    }

    // Derived code reads a struct only as a struct.
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The name of a field, copied while it is read.
struct Name<'a, K> {
    seed: K,
    field: &'a mut String,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Name<'_, K> {
    type Value = K::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        *self.field = String::deserialize(deserializer)?;
        self.seed
            .deserialize(self.field.as_str().into_deserializer())
    }
}

struct NotingVisitor<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for NotingVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(NotedMap::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(seq)
    }
}

/// The fields of a part, noted while its settings are read.
pub(super) struct NotedMap<'de, A> {
    map: A,
    field: String,
    de: PhantomData<&'de ()>,
}

impl<A> NotedMap<'_, A> {
    pub(super) fn new(map: A) -> Self {
        NOTES.with_borrow_mut(|notes| {
            if let Some(Notes { path, fields }) = notes {
                fields.groups.insert(path.join("."));
            }
        });
        Self {
            map,
            field: String::new(),
            de: PhantomData,
        }
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for NotedMap<'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        // Called within the format's own code, so that an error names this key.
        self.map.next_key_seed(Name {
            seed,
            field: &mut self.field,
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        NOTES.with_borrow_mut(|notes| {
            if let Some(Notes { path, fields }) = notes {
                path.push(std::mem::take(&mut self.field));
                fields.all.insert(path.join("."));
            }
        });
        let value = self.map.next_value_seed(seed);
        NOTES.with_borrow_mut(|notes| notes.as_mut().map(|notes| notes.path.pop()));
        value
    }
}
