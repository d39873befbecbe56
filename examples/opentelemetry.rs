//! The layers' metrics in OpenTelemetry's SDK, by a bridge from the `metrics` facade.
//!
//! ```console
//! cargo run --example opentelemetry --features metrics
//! ```

use metrics_opentelemetry::{OpenTelemetryMetrics, OpenTelemetryRecorder};
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
    data::{AggregatedMetrics, MetricData, ResourceMetrics},
};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_keep::{
    bulkhead::BulkheadLayer,
    observe::{BUCKETS, METRICS, MetricKind, Registry},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // In memory, to look at it below: for a collector take `opentelemetry_otlp`'s exporter.
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let meter = opentelemetry::metrics::MeterProvider::meter(&provider, "search");
    let recorder = OpenTelemetryRecorder::new(OpenTelemetryMetrics::new(meter));
    let histograms = METRICS
        .iter()
        .filter(|metric| metric.kind == MetricKind::Histogram);
    recorder.set_histogram_bounds(histograms.map(|metric| metric.name), &BUCKETS);
    metrics::set_global_recorder(recorder)?;

    let layer = BulkheadLayer::builder(10).name("search").build()?;
    let service = layer.layer(service_fn(async |call: u32| match call % 4 {
        0 => Err(std::io::Error::other("broken")),
        _ => Ok(call),
    }));
    for call in 0..40 {
        let _ = service.clone().oneshot(call).await;
        // In a service from a task, a little more often than the reader exports.
        Registry::global().publish();
    }

    provider.force_flush()?;
    let exported = exporter.get_finished_metrics()?;
    let last = exported.last().expect("one export");
    for outcome in ["success", "failure"] {
        println!(
            "tower_keep_calls_total of {outcome}: {:?}",
            calls(last, outcome)
        );
    }
    assert_eq!(calls(last, "success"), Some(30));
    assert_eq!(calls(last, "failure"), Some(10));
    Ok(())
}

/// What was exported of `tower_keep_calls_total`.
fn calls(exported: &ResourceMetrics, outcome: &str) -> Option<u64> {
    let metrics = exported.scope_metrics().flat_map(|scope| scope.metrics());
    let calls = metrics.filter(|metric| metric.name() == "tower_keep_calls_total");
    let mut sums = calls.filter_map(|metric| match metric.data() {
        AggregatedMetrics::U64(MetricData::Sum(sum)) => Some(sum),
        _ => None,
    });
    let mut points = sums.next()?.data_points();
    let found = points.find(|point| {
        let mut attributes = point.attributes();
        attributes.any(|attribute| attribute.value.as_str() == outcome)
    });
    found.map(|point| point.value())
}
