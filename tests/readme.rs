//! The README shows code that runs.

/// The block is a doctest as well; the example is what `.ci/run` runs, and the guide shows.
#[test]
fn the_first_stack_is_the_example() {
    let readme = include_str!("../README.md");
    let example = include_str!("../examples/first_stack.rs");
    assert!(readme.contains(&format!("```rust\n{example}```\n")));
}
