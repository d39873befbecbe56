//! An nginx that the tests configure, stop and start.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use crate::programs::{Folder, Running};

/// One nginx on a port of its own, which it keeps when it is started again.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    folder: Folder,
    server: Option<Running>,
}

impl Nginx {
    /// Starts it with `server` in its only server block, and `listen` beside the port.
    pub(crate) async fn start(listen: &str, server: &str) -> Self {
        let folder = Folder::new("nginx");
        let address = free_address().await;
        let place = folder.path().display();
        let config = CONFIG
            .replace("{place}", &place.to_string())
            .replace("{listen}", &format!("{address} {listen}"))
            .replace("{server}", server);
        folder.write("nginx.conf", &config);
        let mut nginx = Self {
            address,
            folder,
            server: None,
        };
        nginx.start_again().await;
        nginx
    }

    pub(crate) async fn start_again(&mut self) {
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(self.folder.path())
            .args(["-c", "nginx.conf", "-e", "errors"]);
        self.server = Some(Running::start(&mut command));
        let start = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            let waited = start.elapsed();
            assert!(
                waited < Duration::from_secs(30),
                "{}",
                self.folder.read("errors")
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests it has logged so: `POST /drop 444`.
    pub(crate) async fn saw(&self, request: &str) -> usize {
        let requests = self.requests().await;
        requests.iter().filter(|line| *line == request).count()
    }

    /// Method, path and status of each request. One is logged when it has ended, which may be a
    /// little after the client knows.
    pub(crate) async fn requests(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let log = self.folder.read("requests");
        log.lines().map(str::to_owned).collect()
    }
}

/// A port that was free a moment ago, and that nginx is still able to take.
async fn free_address() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// One process, so that killing it leaves none behind.
const CONFIG: &str = r#"
daemon off;
master_process off;
pid {place}/pid;
events {}
http {
  log_format requests "$request_method $uri $status";
  access_log {place}/requests requests;
  client_body_temp_path {place}/bodies;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  limit_req_zone $server_port zone=quota:64k rate=1r/s;
  server {
    listen {listen};
    {server}
  }
}
"#;
