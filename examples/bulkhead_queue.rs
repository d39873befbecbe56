//! A database that serves two calls at a time, and twenty callers that call it at once. Calls wait
//! in a bounded queue for a bounded time, the more critical ones in front.
//!
//! `cargo run --example bulkhead_queue`

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{Criticality, Rejected, RejectedKind, bulkhead::BulkheadLayer};

#[derive(Debug, Clone, Copy)]
struct Query {
    number: u32,
    class: Criticality,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // Two calls of 20 ms at a time are a hundred a second. Callers wait for a second, so half of
    // that is what queue and call may take together.
    let bulkhead = BulkheadLayer::builder(2)
        .name("database")
        .max_wait(Duration::from_millis(480))
        .max_waiting(8)
        .criticality(|query: &Query| query.class)
        .build()?;
    let handle = bulkhead.handle();
    let database = bulkhead.layer(service_fn(async |query: Query| {
        sleep(Duration::from_millis(20)).await;
        Ok::<_, std::io::Error>(query.number)
    }));

    // First ten statistics, then ten calls for which a user waits.
    let mut calls = JoinSet::new();
    for number in 0..20 {
        let class = if number < 10 {
            Criticality::Sheddable
        } else {
            Criticality::CriticalPlus
        };
        let query = Query { number, class };
        let database = database.clone();
        calls.spawn(async move { (query, database.oneshot(query).await) });
    }
    let (mut answered, mut rejected) = (Vec::new(), Vec::new());
    while let Some(call) = calls.join_next().await {
        let (query, result) = call?;
        match result {
            Ok(number) => answered.push((number, query.class)),
            Err(error) => {
                let rejection = Rejected::find(&*error).expect("the database never fails");
                assert_eq!(rejection.kind, RejectedKind::BulkheadFull);
                rejected.push(query.class);
            }
        }
    }

    let of = |class| {
        rejected
            .iter()
            .filter(|rejected| **rejected == class)
            .count()
    };
    let statistics = of(Criticality::Sheddable);
    let users = of(Criticality::CriticalPlus);
    println!("answered, in this order: {answered:?}");
    println!("rejected: {statistics} of 10 statistics, {users} of 10 users");
    println!("{:?}", handle.snapshot());

    // Two run at once, and half of the queue is theirs: four. The other half is for users.
    assert_eq!((statistics, users), (4, 6));
    // The first two did not wait. Of the others the users go first, and each class in its order:
    // nobody has waited for half of the time, which would count for more.
    let order: Vec<_> = answered.iter().map(|(number, _)| *number).collect();
    assert_eq!(order, [0, 1, 10, 11, 12, 13, 2, 3, 4, 5]);
    assert_eq!(
        (handle.snapshot().in_flight, handle.snapshot().waiting),
        (0, 0)
    );
    Ok(())
}
