//! The README shows code that runs, and that of the examples lists them all.

use std::{fs, path::Path};

/// The block is a doctest as well; the example is what `.ci/run` runs, and the guide shows.
#[test]
fn the_first_stack_is_the_example() {
    let readme = include_str!("../../README.md");
    let example = include_str!("../../examples/first_stack.rs");
    assert!(readme.contains(&format!("```rust\n{example}```\n")));
}

#[test]
fn the_examples_readme_lists_every_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let sources = [name.clone(), format!("{name}/main.rs")];
        let source = sources
            .iter()
            .find(|source| source.ends_with(".rs") && folder.join(source).is_file());
        if let Some(source) = source {
            assert!(readme.contains(&format!("]({source})")), "{source}");
        }
    }
}
