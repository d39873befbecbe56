//! A tonic server's stack under gRPC's C core, as Debian's `python3-grpcio` has it.

use std::{process::Command, time::Duration};

use tonic::transport::{Server, server::TcpIncoming};
use tower_keep::{rate_limit::Rate, stack};

use crate::programs::{Folder, run};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs python3-grpcio"]
async fn the_c_core_reads_rejections_with_pushback() {
    let stack = stack::server().grpc().rate(Rate::per_minute(60)).burst(5);
    let stack = stack.max_in_flight(100).build().unwrap();
    let handle = stack.handle();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().layer(stack).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let folder = Folder::new("grpc");
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(folder.write("calls.py", CALLS))
        .arg(address.to_string());
    let report = run(command).await;
    let mut lines: Vec<_> = report.lines().collect();
    let rejected = lines.split_off(5);
    assert_eq!(lines, ["OK"; 5], "{report}");
    assert_eq!(rejected.len(), 5, "{report}");
    for line in rejected {
        let pushback = line.strip_prefix("RESOURCE_EXHAUSTED rate limit exceeded ");
        let pushback: u64 = pushback.expect(line).parse().unwrap();
        assert!((1..=1000).contains(&pushback), "{line}");
    }
    while handle.snapshot().bulkhead.in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Empty messages need no generated code.
const CALLS: &str = r#"
import sys, grpc
same = lambda message: message
with grpc.insecure_channel(sys.argv[1]) as channel:
    check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=same, response_deserializer=same)
    for _ in range(10):
        try:
            check(b"", timeout=5)
            print("OK")
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata())
            print(error.code().name, error.details(), trailers.get("grpc-retry-pushback-ms"))
"#;
