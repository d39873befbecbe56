//! What the compiler says of the mistakes that users make. The words of this crate must be in it,
//! and the guide's table of mistakes must be about the same.
//!
//! Each file in `made` is a mistake. Its first lines tell, after `//|`, the row of the table that
//! it is about, and after `//~` what the compiler has to say: words of this crate, or a few of the
//! compiler's own that hardly change from version to version. The files are a test executable of
//! their own. It is empty unless a flag of the compiler is set, so that they are compiled here
//! alone, with all that is built for the tests anyway.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

/// A file, and what its first lines say.
struct Mistake {
    rows: Vec<String>,
    expected: Vec<String>,
    /// Whether the compiler finds it only once all types are right.
    is_of_lifetimes: bool,
    /// Whether a later compiler may accept it.
    may_compile: bool,
}

#[test]
fn the_compiler_says_what_to_do() {
    let mistakes = mistakes();
    assert!(mistakes.len() > 20);
    for (flag, of_lifetimes) in [("types", false), ("lifetimes", true)] {
        let said = said(flag);
        for (file, mistake) in &mistakes {
            if mistake.is_of_lifetimes != of_lifetimes {
                continue;
            }
            let place = format!("made/{file}.rs:");
            let about = said.iter().filter(|error| error.contains(&place));
            let about: Vec<_> = about.map(String::as_str).collect();
            let about = about.concat();
            if about.is_empty() {
                assert!(mistake.may_compile, "`{file}` compiles");
                continue;
            }
            for words in &mistake.expected {
                assert!(
                    about.contains(words),
                    "`{file}` does not say {words:?}:\n{about}"
                );
            }
        }
    }
}

#[test]
fn every_mistake_in_the_guide_is_made() {
    let guide = include_str!("../../src/guide/keeping.md");
    let (_, table) = guide
        .split_once("| it says | because | do |\n|---|---|---|\n")
        .unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let rows: BTreeSet<_> = rows
        .map(|row| row.split(" | ").next().unwrap().trim_start_matches("| "))
        .collect();
    let made: Vec<_> = mistakes()
        .into_values()
        .flat_map(|made| made.rows)
        .collect();
    let made: BTreeSet<_> = made.iter().map(String::as_str).collect();
    assert_eq!(rows, made);
}

fn mistakes() -> BTreeMap<String, Mistake> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes/made");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|file| file.file_name().is_some_and(|name| name != "main.rs"));
    files
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let lines = |mark: &str| {
                let marked = text.lines().filter_map(|line| line.strip_prefix(mark));
                marked.map(|line| line.trim().to_owned()).collect()
            };
            let mistake = Mistake {
                rows: lines("//|"),
                expected: lines("//~"),
                is_of_lifetimes: text.contains("//! Found once all types are right."),
                may_compile: text.contains("A later compiler may accept it."),
            };
            (
                file.file_stem().unwrap().to_str().unwrap().to_owned(),
                mistake,
            )
        })
        .collect()
}

/// The compiler's errors, each as it is shown.
fn said(flag: &str) -> Vec<String> {
    let cargo = Command::new(env::var_os("CARGO").unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "rustc",
            "--offline",
            "--all-features",
            "--test",
            "mistakes_made",
        ])
        .args(["--message-format", "json", "--", "--cfg"])
        .arg(format!("keep_mistakes={flag:?}"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&cargo.stderr);
    assert!(!cargo.status.success(), "mistakes compile: {errors}");
    let output = String::from_utf8(cargo.stdout).unwrap();
    let messages = output
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let messages = messages.filter(|line: &Value| line["reason"] == "compiler-message");
    let found: Vec<_> = messages
        .filter(|line| line["message"]["level"] == "error")
        .map(|line| line["message"]["rendered"].as_str().unwrap().to_owned())
        .collect();
    assert!(!found.is_empty(), "{errors}");
    found
}
