//! Links of the README, and the list of all examples.

use std::{fs, path::Path};

/// Its programs are run by `scripts/readme`.
#[test]
fn the_readme_links_to_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = include_str!("../../README.md");
    let links = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    for (link, _) in links.filter(|(link, _)| !link.starts_with('#')) {
        assert!(root.join(link).exists(), "{link}");
    }
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
