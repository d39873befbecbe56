//! A client's stack whose thresholds are in a file. A change of the file applies while the stack
//! runs, and an error in it changes nothing.
//!
//! `cargo run --example settings_file --features http,watch`

use std::{fs, sync::mpsc, time::Duration};

use tower::BoxError;
use tower_keep::{
    settings::{self, ClientSettings, Reload},
    stack,
};

fn read(text: &str) -> Result<ClientSettings, BoxError> {
    Ok(settings::read(toml::Deserializer::parse(text)?)?)
}

fn main() -> Result<(), BoxError> {
    let path = std::env::temp_dir().join(format!("payments-{}.toml", std::process::id()));
    let toml = r#"
        name = "payments"
        total_timeout = "2s"
        attempt_timeout = "500ms"
        rate = "100/s"

        [circuit_breaker]
        failure_rate = "30%"
    "#;
    fs::write(&path, toml)?;

    let settings = read(&fs::read_to_string(&path)?)?;
    let stack = settings.apply_to(stack::client().http())?.build()?;
    let (tell, told) = mpsc::channel();
    let reload = Reload::new(stack.handle(), settings);
    // A service would log both.
    let _watch = settings::watch(&path, read, reload, move |result| {
        let _ = tell.send(result);
    })?;
    let next = || told.recv_timeout(Duration::from_secs(20));

    fs::write(&path, toml.replace("100/s", "50/s"))?;
    let changed = next()??;
    println!("{changed}");
    let rate = || stack.handle().snapshot().rate_limit.unwrap().rate;
    assert_eq!(rate().count(), 50);

    fs::write(&path, toml.replace("500ms", "500"))?;
    let error = next()?.unwrap_err().to_string();
    println!("{error}");
    assert!(error.contains("`attempt_timeout`") && error.contains("write 500ms"));

    // Two changes of which one cannot be: neither is made.
    fs::write(
        &path,
        toml.replace("100/s", "70/s").replace("\"2s\"", "\"0s\""),
    )?;
    println!("{}", next()?.unwrap_err());
    assert_eq!(rate().count(), 50);

    fs::remove_file(&path)?;
    Ok(())
}
