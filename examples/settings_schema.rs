//! Writes the JSON schema of a client's and a server's settings, for editors that complete and
//! check such files.
//!
//! `cargo run --example settings_schema --features http,schemars > settings.schema.json`

use schemars::{JsonSchema, schema_for};
use tower_keep::settings::{ClientSettings, ServerSettings};

/// A service's file: what it is protected by, and what it protects.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is asked for")]
struct Service {
    /// What it is asked.
    server: ServerSettings,
    /// What it asks.
    #[schemars(default)]
    upstream: ClientSettings,
}

fn main() -> Result<(), serde_json::Error> {
    let schema = schema_for!(Service);
    println!("{}", serde_json::to_string_pretty(&schema)?);
    let circuit = &schema.to_value()["$defs"]["ClientCircuitBreakerSettings"]["properties"];
    assert_eq!(circuit["open_for"]["default"], "500ms");
    Ok(())
}
