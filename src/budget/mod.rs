//! Budgets that pay for retries and hedges: one for all calls, or one for each key.
//!
//! With one budget for all upstreams, a failing upstream uses up the tokens of the healthy ones.
//! [`KeyedBudgets`] keep them apart, by host for example, and the layers that call the same hosts
//! share them:
//!
//! ```
//! # #[cfg(feature = "http")] fn main() -> Result<(), tower_keep::ConfigError> {
//! use tower_keep::{
//!     budget::KeyedBudgets,
//!     hedge::HedgeLayer,
//!     keyed::{ByHost, Host},
//!     protocol::http,
//!     retry::RetryLayer,
//! };
//!
//! let budgets = KeyedBudgets::<Host, _>::builder(ByHost).build()?;
//! let retry = RetryLayer::builder().protocol(http::Client::new());
//! let retry = retry.budget_per(budgets.clone()).build()?;
//! let hedge = HedgeLayer::builder().protocol(http::Client::new());
//! let hedge = hedge.budget_per(budgets.clone()).build()?;
//! # let (_, _) = (retry, hedge);
//! assert!(budgets.handle().keys().is_empty());
//! # Ok(()) }
//! # #[cfg(not(feature = "http"))] fn main() {}
//! ```
//!
//! [`stack::client`](crate::stack::client) does so by default.
//!
//! A budget that layers share counts each event once, even if one layer is beneath the other. The
//! outermost layer counts the call, and the first layer that sees a success or failure counts it.
//! Only an attempt that is sent in a task of its own counts there as well.

mod counting;
mod keyed;
mod purse;
mod token;

pub(crate) use counting::Counting;
pub use keyed::{BudgetsHandle, KeyedBudgets, KeyedBudgetsBuilder};
pub use purse::OneBudget;
pub(crate) use purse::{FindBudget, KeyBudget, Payer, Purse, Purses, SharedBudget};
pub(crate) use token::Token;
