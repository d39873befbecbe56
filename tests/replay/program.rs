//! The program.

use std::{
    fs,
    process::{Command, Output},
};

use crate::reading::Temporary;

fn what_if(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_what_if"));
    command.args(arguments).output().unwrap()
}

fn words(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// Ten calls at once, every second.
fn log() -> Temporary {
    let file = Temporary::new("calls.csv");
    let lines = (0..600).map(|number| {
        format!(
            "{}.5,20,{},tenant {}\n",
            1_796_062_128 + number / 10,
            if number % 9 == 0 { 503 } else { 200 },
            number % 3
        )
    });
    let head = "start,duration_ms,status,key\n".to_owned();
    fs::write(&file.0, head + &lines.collect::<String>()).unwrap();
    file
}

#[test]
fn a_log_and_settings_make_text_page_and_json() {
    let (log, settings) = (log(), Temporary::new("client.toml"));
    let (page, json) = (Temporary::new("page.html"), Temporary::new("all.json"));
    fs::write(&settings.0, "rate = '20/s'\nburst = 5\n").unwrap();
    let path = |file: &Temporary| file.0.to_str().unwrap().to_owned();
    let output = what_if(&[
        &path(&log),
        "--settings",
        &path(&settings),
        &format!("--html={}", path(&page)),
        "--json",
        &path(&json),
        "--show-keys",
    ]);
    assert!(output.status.success(), "{}", words(&output.stderr));
    let text = words(&output.stdout);
    assert!(
        text.contains("600 calls") && text.contains("tenant 1"),
        "{text}"
    );
    assert!(fs::read_to_string(&page.0).unwrap().contains("<svg"));
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&json.0).unwrap()).unwrap();
    let good = &json["now"][0]["as_it_was"];
    assert!(good["rejected_good"].as_u64().unwrap() > 200, "{good}");
    assert_eq!(output.stderr, b"", "no bar where nobody looks");
}

#[test]
fn an_assertion_that_fails_is_an_exit_of_one() {
    let (log, settings) = (log(), Temporary::new("client.toml"));
    fs::write(&settings.0, "rate = '20/s'\nburst = 5\n").unwrap();
    let (log, settings) = (log.0.to_str().unwrap(), settings.0.to_str().unwrap());
    let bound = "rejected_good < 0.01%";
    let output = what_if(&[log, "--settings", settings, "--quiet", "--assert", bound]);
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output.stderr).contains("does not hold"));
    let output = what_if(&[log, "--quiet", "--assert", bound]);
    assert_eq!((output.status.code(), output.stdout), (Some(0), vec![]));
}

#[test]
fn a_mistake_says_what_to_do() {
    let nonsense = Temporary::new("nonsense");
    fs::write(&nonsense.0, "hello\n").unwrap();
    let log = log();
    let broken = Temporary::new("client.toml");
    fs::write(&broken.0, "total_timeout = '1'").unwrap();
    let (log, broken) = (log.0.to_str().unwrap(), broken.0.to_str().unwrap());
    for (arguments, expected) in [
        (vec![], "at least one log"),
        (vec!["--nope"], "no option"),
        (vec!["--assert"], "wants a value"),
        (vec!["x", "--assert", "y"], "no assertion"),
        (vec!["/does/not/exist"], "/does/not/exist"),
        (vec![nonsense.0.to_str().unwrap()], "format is not known"),
        (vec![log, "--settings", broken], "no unit"),
        (vec![log, "--server", "--zone", "here"], "no zone"),
    ] {
        let output = what_if(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = words(&output.stderr);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let help = what_if(&["--help"]);
    assert!(help.status.success() && words(&help.stdout).contains("usage: what_if"));
}

#[test]
fn the_help_has_every_figure_of_an_assertion() {
    let help = words(&what_if(&["--help"]).stdout);
    let error = words(&what_if(&["x", "--assert", "y"]).stderr);
    let (_, figures) = error.trim().split_once("The figures are ").unwrap();
    assert_eq!(figures.split(", ").count(), 11);
    for figure in figures.split(", ") {
        assert!(help.contains(figure), "{figure}");
    }
}
