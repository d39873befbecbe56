//! An axum server of finite capacity that lives through the script.
//!
//! A fixed number of workers take calls from a queue, first come first served. As in any server
//! with a pool, a queued call is worked on although its caller may have given up long ago: that is
//! what lets a storm of retries hold it down.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::Response,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    net::TcpSocket,
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tower_keep::{
    bulkhead::BulkheadLayer,
    protocol::http,
    rate_limit::{Rate, RateLimitLayer},
};

use crate::{
    clock::Clock,
    options::Options,
    script::{Health, Script},
};

/// A server, whether its process is up or not.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Duration>>>,
}

impl Server {
    /// Binds a free port, and runs the script on it from now on.
    pub(crate) fn start(options: &Options, script: &Script, clock: Clock) -> io::Result<Self> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let server = Self {
            address: socket.local_addr()?,
            log: Arc::default(),
        };
        let log = Arc::clone(&server.log);
        let life = live(options.clone(), script.clone(), clock, socket, log);
        tokio::spawn(async move {
            if let Err(error) = life.await {
                eprintln!("a server ended, which is not in the script: {error}");
            }
        });
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// When calls came, so far.
    pub(crate) fn calls(&self) -> Vec<Duration> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn calls_since(&self, since: Duration) -> usize {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().rev().take_while(|at| **at >= since).count()
    }
}

type Log = Arc<Mutex<Vec<Duration>>>;

async fn live(
    options: Options,
    script: Script,
    clock: Clock,
    socket: TcpSocket,
    log: Log,
) -> io::Result<()> {
    let address = socket.local_addr()?;
    let mut reserved = Some(socket);
    let mut process: Option<Process> = None;
    for phase in &script.phases {
        clock.sleep_until(phase.start).await;
        match (phase.health, &process) {
            (Health::Refusing, _) => {
                drop(process.take());
                reserved = Some(rebind(address).await?);
            }
            (health, Some(process)) => process.set(health),
            (health, None) => {
                if let Some(socket) = reserved.take() {
                    process = Some(Process::start(
                        &options,
                        health,
                        clock,
                        socket,
                        Arc::clone(&log),
                    )?);
                }
            }
        }
    }
    // The last process lives until the drill is over.
    std::future::pending().await
}

/// A socket that is bound and does not listen refuses all connections, and keeps the port from
/// being taken meanwhile.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn rebind(address: SocketAddr) -> io::Result<TcpSocket> {
    let mut attempts = 1000;
    loop {
        match bind(address) {
            Ok(socket) => return Ok(socket),
            Err(error) if attempts == 0 => return Err(error),
            // The listener of the process that died is still being closed.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
        attempts -= 1;
    }
}

/// One run of the server. It has a runtime of its own, so that dropping it is sudden death:
/// connections, workers and backlog go at once.
#[derive(Debug)]
struct Process {
    runtime: Option<Runtime>,
    health: watch::Sender<Health>,
}

impl Process {
    fn start(
        options: &Options,
        health: Health,
        clock: Clock,
        socket: TcpSocket,
        log: Log,
    ) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (health, condition) = watch::channel(health);
        let (queue, jobs) = mpsc::channel(options.backlog);
        let handle = runtime.handle().clone();
        // Made first: a runtime that an early return dropped bare, in a task, would panic.
        let process = Self {
            runtime: Some(runtime),
            health,
        };

        let jobs = Arc::new(tokio::sync::Mutex::new(jobs));
        for worker in 0..options.workers {
            let random = StdRng::seed_from_u64(options.seed ^ ((worker as u64 + 1) << 32));
            handle.spawn(work(
                Arc::clone(&jobs),
                condition.clone(),
                options.service_time,
                random,
            ));
        }
        let router = router(options, queue, clock, log)?;
        let listener = {
            let _entered = handle.enter();
            socket.listen(1024)?
        };
        handle.spawn(async move { axum::serve(listener, router).await });
        Ok(process)
    }

    fn set(&self, health: Health) {
        self.health.send_replace(health);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Job = oneshot::Sender<StatusCode>;

/// The application, with its protection switched on or off.
fn router(
    options: &Options,
    queue: mpsc::Sender<Job>,
    clock: Clock,
    log: Log,
) -> io::Result<Router> {
    let capacity = Rate::new(options.workers as u64, options.service_time);
    let limit = RateLimitLayer::builder(capacity)
        .protocol(http::Server::new())
        .enabled(options.protect_server);
    let bulkhead = BulkheadLayer::builder(options.workers * 4)
        .protocol(http::Server::new())
        .enabled(options.protect_server);
    let count = from_fn(move |request: Request, next: Next| {
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(clock.now());
        next.run(request)
    });
    let router = Router::new().fallback(answer).with_state(queue);
    let router = router
        .layer(bulkhead.build().map_err(io::Error::other)?)
        .layer(limit.build().map_err(io::Error::other)?);
    Ok(router.layer(count))
}

/// Queues a call, and waits for a worker's answer.
async fn answer(State(queue): State<mpsc::Sender<Job>>) -> Result<Response, StatusCode> {
    let (job, answer) = oneshot::channel();
    queue
        .try_send(job)
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    match answer.await {
        Ok(StatusCode::OK) => Ok(Response::default()),
        Ok(status) => Err(status),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// A worker: one call at a time, in order of arrival, wanted or not.
async fn work(
    jobs: Arc<tokio::sync::Mutex<mpsc::Receiver<Job>>>,
    mut condition: watch::Receiver<Health>,
    service_time: Duration,
    mut random: StdRng,
) {
    loop {
        let job = jobs.lock().await.recv().await;
        let (Some(job), Ok(health)) = (
            job,
            condition
                .wait_for(|health| *health != Health::Hanging)
                .await
                .map(|health| *health),
        ) else {
            return;
        };
        let Health::Serving { slowness, failing } = health else {
            return;
        };
        sleep(service_time.mul_f64(slowness * random.random_range(0.5..1.5))).await;
        let failed = random.random_bool(failing);
        // Nobody may be waiting any more; the work was done all the same.
        let _ = job.send(if failed {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        });
    }
}
