//! Settings from files: a plain struct for each pattern and each stack, read by serde.
//!
//! ```
//! use tower_keep::{settings::{self, ClientSettings}, stack};
//!
//! let toml = r#"
//!     total_timeout = "8s"
//!     rate = "100/s"
//!
//!     [retry]
//!     attempts = 2
//!     backoff = { base = "50ms" }
//!
//!     [circuit_breaker]
//!     failure_rate = "30%"
//! "#;
//! let read: ClientSettings = settings::read(toml::Deserializer::parse(toml)?)?;
//! let stack = read.apply_to(stack::client().http())?.build()?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! A field has the name of the builder's setter, and its default. Values have units: `"250ms"`,
//! `"100/s"`, `"50%"`. A setting that can be turned off accepts `"off"`. An unknown field is an
//! error, and an error names the path, the value and the fix. Only `build` checks what values mean.
//!
//! Code sets keys, costs, classes and protocols: each struct makes the pattern's builder, which has
//! these setters.
//!
//! A running layer changes from one set of settings to another by [`Settings::update`], which
//! changes all or nothing. Any format that serde supports works, and [`read`] adds the path to its
//! errors.

mod adaptive;
mod budget;
mod bulkhead;
#[cfg(feature = "http")]
mod calls;
mod circuit_breaker;
#[cfg(feature = "http")]
mod client;
mod dimensions;
mod document;
mod fallback;
#[cfg(feature = "fault")]
mod fault;
mod fixed;
mod part;
#[cfg(feature = "http")]
mod parts;
mod rate_limit;
mod read;
mod reload;
mod retry;
mod scalar;
#[cfg(feature = "schemars")]
mod schema;
#[cfg(feature = "http")]
mod server;
mod text;
mod throttle;
mod timing;
mod units;
#[cfg(feature = "watch")]
mod watch;
mod written;

pub use adaptive::{AdaptiveSettings, AimdSettings, Gradient2Settings, VegasSettings};
pub use budget::{BudgetSettings, FundedSettings, WindowedSettings};
pub use bulkhead::{BulkheadSettings, CodelSettings};
#[cfg(feature = "http")]
pub use calls::{CallsSettings, OneCallSettings};
#[cfg(feature = "http")]
pub use circuit_breaker::InClient;
pub use circuit_breaker::{Alone, BreakerContext, CircuitBreakerSettings, SlowCallsSettings};
#[cfg(feature = "http")]
pub use client::{ClientSettings, ConfiguredClient};
pub use dimensions::{DimensionSettings, DimensionsSettings, DimensionsUpdater};
pub use document::Document;
pub use fallback::FallbackSettings;
#[cfg(feature = "fault")]
pub use fault::FaultSettings;
pub use rate_limit::{LimitAlgorithm, RateLimitSettings};
pub use read::{ReadError, read};
pub use reload::{Reload, Settings};
pub use retry::{BackoffSettings, JitterSettings, RetrySettings};
#[cfg(feature = "http")]
pub use server::{ConfiguredServer, ServerSettings};
pub use throttle::ThrottleSettings;
pub use timing::{HedgeSettings, TimeoutSettings};
pub use units::{HumanDuration, HumanRate, HumanWindow, OrOff, Share};
#[cfg(feature = "watch")]
pub use watch::{LastError, ReloadError, Sections, Watch, WatchHandle, WatchSnapshot, watch};
