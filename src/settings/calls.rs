//! Settings of single calls: of gRPC methods, and of hosts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "tonic-014")]
use crate::protocol::grpc;
use crate::{
    CallSettings, ConfigError, Criticality,
    protocol::http,
    settings::{HumanDuration, scalar::given},
};

/// Settings of the calls of a client, by gRPC method or by host: a [`CallSettings`] for each.
///
/// They are fixed once the client is built: a running stack does not change them. A request's own
/// settings, in an extension, take precedence.
///
/// ```
/// # #[cfg(feature = "tonic-014")] {
/// use tower_keep::{protocol::grpc, settings::{self, CallsSettings}, stack};
///
/// let toml = r#"
///     ["shop.Search/*"]
///     idempotent = true
///     attempt_timeout = "50ms"
///
///     ["shop.Search/Reindex"]
///     idempotent = false
///     total_timeout = "60s"
///
///     ["shop.Orders/Place"]
///     attempts = 1
///     cost = 5
///     criticality = "critical_plus"
/// "#;
/// let methods: CallsSettings = settings::read(toml::Deserializer::parse(toml).unwrap()).unwrap();
/// let client = methods.by_method(grpc::Client::new()).unwrap();
/// let stack = stack::client().grpc(client).build().unwrap();
/// # let _ = stack;
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct CallsSettings(BTreeMap<String, OneCallSettings>);

/// Settings of one kind of call. Each has the meaning of the setter of the same name in
/// [`CallSettings`]. Settings that are left out keep the layers' values.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default, expecting = "fields with values")]
#[non_exhaustive]
pub struct OneCallSettings {
    /// The most times that a call is sent, the first time included.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The units that a call takes of the rate limit.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
    /// The criticality: how much a rejection of the call hurts.
    #[serde(
        deserialize_with = "criticality",
        skip_serializing_if = "Option::is_none"
    )]
    pub criticality: Option<Criticality>,
    /// The longest time of a call with all its attempts.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub total_timeout: Option<HumanDuration>,
    /// The longest time of one attempt.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub attempt_timeout: Option<HumanDuration>,
    /// If true, a gRPC method may be called more than once. Not for hosts. Default: the code's
    /// setting.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
}

fn criticality<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Criticality>, D::Error> {
    Criticality::deserialize(deserializer).map(Some)
}

impl CallsSettings {
    /// Returns the settings under a name, as the file writes it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OneCallSettings> {
        self.0.get(name)
    }

    /// Sets these settings in a gRPC client, by method: `package.Service/Method`, or
    /// `package.Service/*` for all other methods of a service. They replace the client's
    /// [`call_settings`](grpc::Client::call_settings), and add to its idempotent methods.
    ///
    /// # Errors
    /// A name that is not a method, or a timeout of zero.
    #[cfg(feature = "tonic-014")]
    pub fn by_method(&self, client: grpc::Client) -> Result<grpc::Client, ConfigError> {
        for (name, settings) in &self.0 {
            let parts = name.trim_start_matches('/').split_once('/');
            if !parts.is_some_and(|(service, method)| {
                !service.is_empty() && !method.is_empty() && !method.contains('/')
            }) {
                let fix = "write `package.Service/Method`, or `package.Service/*` for all others";
                return Err(ConfigError::new("method", name, fix).of("calls", None));
            }
            settings.check()?;
        }
        let methods = self.0.iter();
        let methods: BTreeMap<String, OneCallSettings> = methods
            .map(|(name, settings)| (name.trim_start_matches('/').to_owned(), *settings))
            .collect();
        let declared = methods.clone();
        let of = |methods: &BTreeMap<String, OneCallSettings>, path: &str| {
            let path = path.trim_start_matches('/');
            let service = path.split_once('/').map_or(path, |(service, _)| service);
            let (own, all) = (methods.get(path), methods.get(&format!("{service}/*")));
            own.copied()
                .unwrap_or_default()
                .or(all.copied().unwrap_or_default())
        };
        Ok(client
            .call_settings(move |path| of(&methods, path).call_settings())
            .idempotent_when(move |path| of(&declared, path).idempotent.unwrap_or(false)))
    }

    /// Sets these settings in an HTTP client, by the host of a request, such as `api.example` or
    /// `localhost:8080`. They replace the client's [`call_settings`](http::Client::call_settings).
    ///
    /// # Errors
    /// A name that is not a host, or a timeout of zero. Also `idempotent`, which follows from the
    /// requests' methods.
    pub fn by_host<K>(&self, client: http::Client<K>) -> Result<http::Client<K>, ConfigError> {
        let mut hosts = BTreeMap::new();
        for (name, settings) in &self.0 {
            let Ok(host) = name.parse::<crate::keyed::Host>() else {
                let fix = "write a host, such as `api.example` or `localhost:8080`";
                return Err(ConfigError::new("host", name, fix).of("calls", None));
            };
            if let Some(idempotent) = settings.idempotent {
                let fix = "leave it: the method of a request tells, or `idempotent_when` in code";
                return Err(ConfigError::new("idempotent", idempotent, fix).of("calls", None));
            }
            settings.check()?;
            hosts.insert(host.to_string(), *settings);
        }
        Ok(client.call_settings(move |head| {
            let host = crate::keyed::Host::of_head(head.uri, head.headers);
            let own = host.and_then(|host| hosts.get(host.as_str()));
            own.map_or_else(CallSettings::new, OneCallSettings::call_settings)
        }))
    }
}

impl OneCallSettings {
    /// Returns the settings as a request's extension.
    #[must_use]
    pub fn call_settings(&self) -> CallSettings {
        let mut settings = CallSettings::new();
        if let Some(attempts) = self.attempts {
            settings = settings.attempts(attempts);
        }
        if let Some(cost) = self.cost {
            settings = settings.cost(cost);
        }
        if let Some(criticality) = self.criticality {
            settings = settings.criticality(criticality);
        }
        if let Some(HumanDuration(total)) = self.total_timeout {
            settings = settings.total_timeout(total);
        }
        if let Some(HumanDuration(attempt)) = self.attempt_timeout {
            settings = settings.attempt_timeout(attempt);
        }
        settings
    }

    /// Returns these settings, with those of `others` where none is set.
    #[cfg(feature = "tonic-014")]
    fn or(self, others: Self) -> Self {
        Self {
            attempts: self.attempts.or(others.attempts),
            cost: self.cost.or(others.cost),
            criticality: self.criticality.or(others.criticality),
            total_timeout: self.total_timeout.or(others.total_timeout),
            attempt_timeout: self.attempt_timeout.or(others.attempt_timeout),
            idempotent: self.idempotent.or(others.idempotent),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let times = [
            ("total_timeout", self.total_timeout),
            ("attempt_timeout", self.attempt_timeout),
        ];
        for (field, time) in times {
            if let Some(HumanDuration(time)) = time.filter(|time| time.0.is_zero()) {
                let fix = "leave time for an answer, or leave it out";
                return Err(ConfigError::new(field, time, fix).of("calls", None));
            }
        }
        Ok(())
    }
}

impl<N: Into<String>> FromIterator<(N, OneCallSettings)> for CallsSettings {
    fn from_iter<I: IntoIterator<Item = (N, OneCallSettings)>>(settings: I) -> Self {
        let settings = settings.into_iter();
        Self(
            settings
                .map(|(name, settings)| (name.into(), settings))
                .collect(),
        )
    }
}
