//! A real server on a free port of the loopback interface, which persists nothing and is killed
//! with its guard.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect();
        let port = free_port();
        let directory =
            std::env::temp_dir().join(format!("keep-fleet-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let child = spawn(port, &directory, &arguments);
        Self {
            child,
            port,
            directory,
            arguments,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) async fn connection(&self) -> redis::aio::ConnectionManager {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_connection_manager().await.unwrap()
    }

    /// Says something to it over a connection of its own.
    pub(crate) fn say(&self, command: &str) -> String {
        say(self.port, command).unwrap()
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Kills it, and starts it empty on the same port after a while.
    pub(crate) fn restart_after(&mut self, pause: Duration) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        sleep(pause);
        self.child = spawn(self.port, &self.directory, &self.arguments);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn free_port() -> u16 {
    // A cluster's bus has a port that is higher by 10 000.
    std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").unwrap())
        .map(|listener| listener.local_addr().unwrap().port())
        .find(|port| *port < 55_000)
        .unwrap()
}

fn spawn(port: u16, directory: &PathBuf, arguments: &[String]) -> Child {
    let mut child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--appendonly", "no", "--dir"])
        .arg(directory)
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("install redis-server: these tests need a real one");
    let started = Instant::now();
    while say(port, "PING").is_none_or(|answer| !answer.contains("PONG")) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "it does not start"
        );
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        sleep(Duration::from_millis(20));
    }
    child
}

fn say(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}
