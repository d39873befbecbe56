//! The page in a real browser: a headless Chromium, which `.ci/run` installs.

use std::{
    convert::Infallible,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::{
    observe::{self, Registry},
    rate_limit::Rate,
    stack,
};

/// What a browser had to show and to say.
struct Seen {
    document: String,
    console: Vec<String>,
}

/// A process with a client that calls, an upstream that can be broken, and its page.
struct Process {
    registry: Arc<Registry>,
    is_broken: Arc<AtomicBool>,
    address: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Process {
    async fn start(name: &str) -> Self {
        let registry = Registry::new();
        let builder = stack::client()
            .http()
            .name(name.to_owned())
            .show_keys(ToString::to_string);
        let builder = builder.rate(Rate::per_second(500)).without_retry();
        let stack = registry.with(|| builder.build()).unwrap();
        let is_broken = Arc::new(AtomicBool::new(false));
        let broken = is_broken.clone();
        let upstream = service_fn(move |_: Request<Empty<Bytes>>| {
            let broken = broken.load(Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(3)).await;
                let mut response = Response::new(Empty::<Bytes>::new());
                if broken {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                Ok::<_, Infallible>(response)
            }
        });
        let service = stack.layer(upstream);
        let calls = tokio::spawn(async move {
            loop {
                let request = Request::get("http://peer.example/")
                    .body(Empty::new())
                    .unwrap();
                let _ = service.clone().oneshot(request).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keep", listener.local_addr().unwrap());
        let page = observe::page(&registry).title("a process");
        let app = axum::Router::new().nest_service("/keep", page);
        let server = tokio::spawn(async { drop(axum::serve(listener, app).await) });
        Self {
            registry,
            is_broken,
            address,
            tasks: vec![calls, server],
        }
    }

    /// What a browser shows that looks for so long.
    async fn browse(&self, number: usize, wait: Duration) -> Seen {
        let address = self.address.clone();
        spawn_blocking(move || browse(&address, number, wait))
            .await
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn browse(address: &str, number: usize, wait: Duration) -> Seen {
    let mut browser = Browser::start(number);
    let target = browser.ask("Target.createTarget", &json!({"url": "about:blank"}));
    let attach = json!({"targetId": target["targetId"], "flatten": true});
    let session = browser.ask("Target.attachToTarget", &attach)["sessionId"].clone();
    browser.session = session.as_str().map(str::to_owned);
    for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
        browser.ask(domain, &json!({}));
    }
    browser.ask("Page.navigate", &json!({"url": address}));
    std::thread::sleep(wait);
    let document = json!({"expression": "document.documentElement.outerHTML"});
    let document = browser.ask("Runtime.evaluate", &document);
    let document = document["result"]["value"].as_str().unwrap().to_owned();
    let told = [
        "Runtime.consoleAPICalled",
        "Runtime.exceptionThrown",
        "Log.entryAdded",
    ];
    let is_told = |event: &&Value| told.contains(&event["method"].as_str().unwrap_or_default());
    let console = browser.events.iter().filter(is_told).map(Value::to_string);
    Seen {
        document,
        console: console.collect(),
    }
}

/// A headless Chromium, which is asked over a pipe: its third and fourth file.
struct Browser {
    child: Child,
    folder: PathBuf,
    requests: File,
    answers: BufReader<File>,
    session: Option<String>,
    asked: u64,
    events: Vec<Value>,
}

impl Browser {
    fn start(number: usize) -> Self {
        let folder = format!("tower-keep-page-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let (requests, answers) = (folder.join("requests"), folder.join("answers"));
        let made = Command::new("mkfifo").args([&requests, &answers]).status();
        assert!(made.unwrap().success());
        let child = Command::new("sh")
            .args([
                "-c",
                "exec chromium \"$@\" 3<\"$REQUESTS\" 4>\"$ANSWERS\"",
                "sh",
            ])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-sync",
            ])
            .args(["--disable-component-update", "--remote-debugging-pipe"])
            .arg(format!(
                "--user-data-dir={}",
                folder.join("profile").display()
            ))
            .env("REQUESTS", &requests)
            .env("ANSWERS", &answers)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium runs: `.ci/run` installs it");
        Self {
            child,
            requests: File::options().write(true).open(requests).unwrap(),
            answers: BufReader::new(File::open(answers).unwrap()),
            folder,
            session: None,
            asked: 0,
            events: Vec::new(),
        }
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let mut request = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        write!(self.requests, "{request}\0").unwrap();
        loop {
            let mut answer = Vec::new();
            self.answers.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser is gone");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] == self.asked {
                assert_eq!(answer["error"], Value::Null, "{method}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Seen {
    /// The row of a name, from its beginning to its end.
    fn row(&self, name: &str) -> &str {
        let start = format!("data-name=\"{name}\"");
        let begin = self
            .document
            .find(&start)
            .unwrap_or_else(|| panic!("{}", self.document));
        let begin = self.document[..begin].rfind("<article").unwrap();
        let end = self.document[begin..].find("</article>").unwrap();
        &self.document[begin..begin + end]
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn the_page_loads_without_an_error() {
    let process = Process::start("payments").await;
    let name = "</script><img src=x onerror=alert(1)>";
    let _odd = crate::support::breaker(&process.registry, name);
    let seen = process.browse(1, Duration::from_secs(4)).await;
    assert_eq!(seen.console, Vec::<String>::new());
    let row = seen.row("payments");
    assert!(
        row.contains("class=\"ok\"") && row.contains(">well<"),
        "{row}"
    );
    for part in [
        "circuit",
        "rate limit",
        "bulkhead",
        "total timeout",
        "attempt timeout",
    ] {
        assert!(row.contains(part), "{part}: {row}");
    }
    assert!(row.contains("p99") && row.contains("500/s"), "{row}");
    assert!(seen.document.contains("live"), "it is told what changes");
    // The odd name is text.
    assert!(
        seen.document.contains("&lt;/script&gt;&lt;img"),
        "{}",
        seen.document
    );
    assert!(!seen.document.contains("<img"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn the_page_follows_an_outage() {
    let process = Process::start("payments").await;
    let broken = process.is_broken.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        broken.store(true, Ordering::Relaxed);
    });
    let seen = process.browse(2, Duration::from_secs(8)).await;
    let row = seen.row("payments");
    assert_eq!(seen.console, Vec::<String>::new());
    assert!(
        row.contains("class=\"bad\"") || row.contains("class=\"warn\""),
        "{row}"
    );
    assert!(row.contains("closed → open"), "{row}");
    assert!(
        row.contains("peer.example") && row.contains("Rejected by"),
        "{row}"
    );
    process.is_broken.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = process.browse(3, Duration::from_secs(12)).await;
    let row = seen.row("payments");
    assert!(row.contains("half open → closed"), "{row}");
    assert!(!row.contains("class=\"bad\"><div"), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium"]
async fn the_page_shows_the_backends_of_a_list() {
    let process = Process::start("payments").await;
    let _list = crate::support::backends(&process.registry, "models").await;
    let seen = process.browse(4, Duration::from_secs(4)).await;
    assert_eq!(seen.console, Vec::<String>::new());
    let row = seen.row("models");
    for text in [
        "backends",
        "large",
        "4 not (failed)",
        "small",
        "4<i> answered</i>",
    ] {
        assert!(row.contains(text), "{text}: {row}");
    }
}
