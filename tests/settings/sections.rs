//! One file with the settings of several stacks.

use std::{
    fs,
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use tower::BoxError;
use tower_keep::{
    settings::{
        self, ClientSettings, Document, Reload, RetrySettings, Sections, ServerSettings, Watch,
    },
    stack::{self, ClientHandle, ServerHandle},
};

const FILE: &str = r#"
version = 3

[payments]
name = "payments"
attempt_timeout = "1s"
retry = { attempts = 2, budget = { funded = { capacity = 5 } } }

[stacks.search]
max_in_flight = 9

[api]
rate = "100/s"
timeout = "2s"
"#;

fn parse(text: &str) -> Result<Document, BoxError> {
    Ok(settings::read(toml::Deserializer::parse(text)?)?)
}

#[test]
fn a_section_reads_as_a_file_of_its_own() {
    let document = parse(FILE).unwrap();
    let payments: ClientSettings = document.section("payments").unwrap();
    assert_eq!(payments.name.as_deref(), Some("payments"));
    assert_eq!(payments.retry.attempts, 2);
    let retry: RetrySettings = document.section("payments.retry").unwrap();
    assert_eq!(retry, payments.retry);
    let search: ClientSettings = document.section("stacks.search").unwrap();
    assert_eq!(search.max_in_flight, Some(settings::OrOff::On(9)));
    let api: ServerSettings = document.section("api").unwrap();
    api.apply_to(stack::server().http())
        .unwrap()
        .build()
        .unwrap();
    // Of any format.
    let json = serde_json::json!({ "a": { "retry": "off", "rate": "5/s", "burst": 7 } });
    let document: Document = settings::read(&json).unwrap();
    let read: ClientSettings = document.section("a").unwrap();
    assert_eq!((read.burst, read.retry.enabled), (Some(7), false));

    let error = |text: &str, section: &str| {
        let document = parse(text).unwrap();
        document.section::<ClientSettings>(section).unwrap_err()
    };
    assert_eq!(error(FILE, "orders").path, "orders");
    assert_eq!(
        error(FILE, "payments.name.first").path,
        "payments.name.first"
    );
    let wrong = error("[payments]\nretry.attempts = 'x'", "payments");
    assert_eq!(wrong.path, "payments.retry.attempts");
    let empty = error("payments = 5", "payments");
    assert!(empty.to_string().contains("fields with values"), "{empty}");
}

struct Running {
    payments: ClientHandle,
    search: ClientHandle,
    api: ServerHandle,
    told: Receiver<(Option<String>, Result<String, String>)>,
    file: std::path::PathBuf,
    watch: Watch,
}

impl Running {
    fn new(name: &str) -> Self {
        let process = std::process::id();
        let file = std::env::temp_dir().join(format!("tower-keep-{name}-{process}.toml"));
        fs::write(&file, FILE).unwrap();
        let document = parse(FILE).unwrap();
        let client = |section| {
            let settings: ClientSettings = document.section(section).unwrap();
            let stack = settings.apply_to(stack::client().http()).unwrap();
            (stack.build().unwrap().handle(), settings)
        };
        let ((payments, of_payments), (search, of_search)) =
            (client("payments"), client("stacks.search"));
        let of_api: ServerSettings = document.section("api").unwrap();
        let api = of_api.apply_to(stack::server().http()).unwrap();
        let api = api.build().unwrap().handle();
        let sections = Sections::new()
            .add("payments", Reload::new(payments.clone(), of_payments))
            .add("stacks.search", Reload::new(search.clone(), of_search))
            .add("api", Reload::new(api.clone(), of_api));
        let (tell, told) = mpsc::channel();
        let watch = sections.watch(&file, parse, move |section, result| {
            let result = result.map(|changed| changed.to_string());
            let result = result.map_err(|error| error.to_string());
            let _ = tell.send((section.map(str::to_owned), result));
        });
        Self {
            payments,
            search,
            api,
            told,
            file,
            watch: watch.unwrap(),
        }
    }

    fn write(&self, text: &str) {
        fs::write(&self.file, text).unwrap();
    }

    fn next(&self) -> (Option<String>, Result<String, String>) {
        self.told.recv_timeout(Duration::from_secs(8)).unwrap()
    }

    fn shown(&self) -> (u64, usize, u64) {
        let timeout = self.payments.snapshot().attempt_timeout.duration;
        let search = self.search.snapshot().bulkheads[0].1.limit;
        let api = self.api.snapshot().timeout.duration;
        (timeout.as_secs(), search, api.as_secs())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

#[test]
fn a_mistake_in_one_section_does_not_stop_the_others() {
    let running = Running::new("sections");
    let changed = FILE
        .replace("attempt_timeout = \"1s\"", "attempt_timeout = \"4\"")
        .replace("max_in_flight = 9", "max_in_flight = 8")
        .replace("timeout = \"2s\"", "timeout = \"3s\"");
    running.write(&changed);
    let (section, result) = running.next();
    let error = result.unwrap_err();
    assert_eq!(section.as_deref(), Some("payments"));
    assert!(
        error.contains("[payments]: `payments.attempt_timeout`"),
        "{error}"
    );
    let (section, result) = running.next();
    let told = "bulkhead: `max_in_flight` from 9 to 8";
    assert_eq!(
        (section.as_deref(), result),
        (Some("stacks.search"), Ok(told.to_owned()))
    );
    assert_eq!(running.next().0.as_deref(), Some("api"));
    assert_eq!(running.shown(), (1, 8, 3));
    assert!(running.watch.handle().snapshot().failing);

    // Mended: the others have nothing new.
    running.write(&changed.replace("\"4\"", "\"2s\""));
    let (section, result) = running.next();
    assert_eq!(section.as_deref(), Some("payments"));
    assert!(result.unwrap().contains("from 1s to 2s"));
    assert_eq!(running.shown(), (2, 8, 3));
    assert!(!running.watch.handle().snapshot().failing);
}

#[test]
fn a_section_that_vanishes_changes_nothing() {
    let running = Running::new("cut-sections");
    // Of the last section the end is missing, of the first a field.
    let cut = FILE.replace("name = \"payments\"\n", "");
    running.write(cut.split("timeout = \"2s\"").next().unwrap());
    let first = running.next();
    assert_eq!(first.0.as_deref(), Some("payments"));
    assert!(first.1.unwrap_err().contains("`name` was in the file"));
    let last = running.next();
    assert_eq!(last.0.as_deref(), Some("api"));
    assert!(last.1.unwrap_err().contains("`timeout` was in the file"));

    running.write(FILE.split("[stacks").next().unwrap());
    for section in ["stacks.search", "api"] {
        let (told, result) = running.next();
        assert_eq!(told.as_deref(), Some(section));
        assert!(result.unwrap_err().contains("the section is missing"));
    }
    running.write("[payments");
    let (section, result) = running.next();
    assert!(section.is_none() && result.is_err());
    assert_eq!(running.shown(), (1, 9, 2));
}
