//! The name of a stack, which its parts share.

pub(super) fn named<B>(
    builder: B,
    name: Option<&'static str>,
    set: impl FnOnce(B, &'static str) -> B,
) -> B {
    match name {
        Some(name) => set(builder, name),
        None => builder,
    }
}
