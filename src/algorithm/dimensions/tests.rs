use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::algorithm::{
    Rate,
    shares::{ActiveWeights, Share},
};

const SECOND: u64 = 1_000_000_000;

fn dimensions<const N: usize>(quotas: [(u64, u64); N]) -> Dimensions<N> {
    Dimensions::new(quotas.map(|(rate, burst)| {
        Quotas::new(
            WideBucket::new(Rate::per_second(rate), burst).unwrap(),
            false,
        )
    }))
}

fn left<const N: usize>(all: &Dimensions<N>, now: u64) -> [u64; N] {
    std::array::from_fn(|at| all.quotas()[at].available(now))
}

#[test]
fn all_are_charged_or_none() {
    let all = dimensions([(1, 5), (100, 1000), (10, 50)]);
    assert!(all.take(&[1, 600, 20], None, 0, 0).is_ok());
    let over = all.take(&[1, 600, 20], None, 0, 0).unwrap_err();
    assert_eq!(over.dimension, 1);
    let wait = Duration::from_secs(2);
    assert_eq!(over.over, OverLimit::Until { wait });
    assert_eq!(left(&all, 0), [4, 400, 30]);
    assert!(
        all.take(&[1, 600, 20], None, 2 * SECOND, 2 * SECOND)
            .is_ok()
    );
}

#[test]
fn the_longest_wait_names_its_dimension() {
    let all = dimensions([(1, 5), (1, 1000), (10, 50)]);
    assert!(all.take(&[5, 0, 50], None, 0, 0).is_ok());
    assert_eq!(all.take(&[1, 0, 50], None, 0, 0).unwrap_err().dimension, 2);
    assert_eq!(
        all.take(&[1, 1001, 1], None, 0, 0).unwrap_err().dimension,
        1
    );
}

#[test]
fn what_costs_nothing_of_a_dimension_passes_its_debt() {
    let all = dimensions([(1, 5), (1, 10)]);
    all.settle(&[0, 0], &[0, 1 << 40], None, 0);
    assert_eq!(all.take(&[0, 1], None, 0, 0).unwrap_err().dimension, 1);
    assert!(all.take(&[1, 0], None, 0, 0).is_ok());
}

#[test]
fn each_is_settled_by_itself() {
    let all = dimensions([(1, 10), (1, 10)]);
    all.take(&[5, 5], None, 0, 0).unwrap();
    all.settle(&[5, 5], &[2, 9], None, 0);
    assert_eq!(left(&all, 0), [8, 1]);
}

proptest! {
    /// Compares with token counts in whole units, at a rate of one unit a second for each.
    #[test]
    fn agrees_with_counters(
        calls in proptest::collection::vec((0u64..8, 0u64..12, 0u64..4), 1..80),
    ) {
        let bursts = [5u64, 9];
        let all = dimensions(bursts.map(|burst| (1, burst)));
        let (mut tokens, mut now) = (bursts, 0);
        for (first, second, seconds) in calls {
            now += seconds * SECOND;
            for (tokens, burst) in tokens.iter_mut().zip(bursts) {
                *tokens = (*tokens + seconds).min(burst);
            }
            let costs = [first, second];
            let fits = costs.iter().zip(tokens).all(|(cost, tokens)| *cost <= tokens);
            prop_assert_eq!(all.take(&costs, None, now, now).is_ok(), fits);
            if fits {
                tokens = std::array::from_fn(|at| tokens[at] - costs[at]);
            }
            prop_assert_eq!(left(&all, now), tokens);
        }
    }
}

#[test]
fn threads_take_no_more_than_there_is_of_any() {
    let all = dimensions([(1, 300), (1, 1000)]);
    let taken = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let got = all.take(&[1, 2], None, 0, 0).is_ok();
                    taken.fetch_add(u64::from(got), Ordering::Relaxed);
                }
            });
        }
    });
    let taken = taken.into_inner();
    assert!(taken <= 300, "{taken}");
    assert_eq!(left(&all, 0), [300 - taken, 1000 - 2 * taken]);
}

/// Tenants at one quota of `rate` units a second.
struct Tenants {
    quota: Dimensions<1>,
    active: ActiveWeights,
    shares: Vec<Share<1>>,
}

impl Tenants {
    /// All of them have called lately.
    fn new((rate, burst): (u64, u64), weights: &[u32]) -> Self {
        let tenants = Self {
            quota: dimensions([(rate, burst)]),
            active: ActiveWeights::default(),
            shares: weights.iter().copied().map(Share::new).collect(),
        };
        for tenant in 0..weights.len() {
            assert!(tenants.take(tenant, 0, 0).is_ok());
        }
        tenants
    }

    fn take(&self, tenant: usize, cost: u64, now: u64) -> Result<(), OverDimension> {
        let claim = self.active.claim(&self.shares[tenant], now);
        self.quota.take(&[cost], Some(&claim), now, now)
    }

    fn settle(&self, tenant: usize, taken: u64, used: u64, now: u64) {
        let claim = self.active.claim(&self.shares[tenant], now);
        self.quota.settle(&[taken], &[used], Some(&claim), now);
    }
}

/// Returns the units that each tenant gets in this time, if each asks for `demand` units a second,
/// in calls of `cost`.
fn got(tenants: &Tenants, demand: &[u64], cost: u64, seconds: u64) -> Vec<u64> {
    let mut got = vec![0; demand.len()];
    let mut owed = vec![0; demand.len()];
    for tick in 1..=seconds * 100 {
        let now = tick * SECOND / 100;
        for (tenant, demand) in demand.iter().enumerate() {
            owed[tenant] += demand;
            while owed[tenant] >= cost * 100 {
                owed[tenant] -= cost * 100;
                if tenants.take(tenant, cost, now).is_ok() {
                    got[tenant] += cost;
                }
            }
        }
    }
    got
}

#[test]
fn a_short_quota_is_shared_by_weight() {
    let tenants = Tenants::new((1000, 1000), &[1, 3]);
    let got = got(&tenants, &[10_000, 10_000], 10, 60);
    // And a burst, which comes first to the first.
    assert!((14_000..17_000).contains(&got[0]), "{got:?}");
    assert!((44_000..47_500).contains(&got[1]), "{got:?}");
}

#[test]
fn what_a_tenant_leaves_is_for_the_others() {
    let tenants = Tenants::new((1000, 1000), &[1, 3]);
    let got = got(&tenants, &[10_000, 100], 10, 60);
    assert_eq!(got[1], 6_000);
    assert!(got[0] >= 53_000, "{got:?}");
}

#[test]
fn a_tenant_that_comes_back_gets_its_share_at_once() {
    let tenants = Tenants::new((1000, 1000), &[1, 1]);
    // For a minute the first one is alone, and takes all.
    assert!(got(&tenants, &[10_000, 0], 10, 60)[0] >= 60_000);
    let mut second = 0;
    for tick in 6_000..6_100 {
        let now = tick * SECOND / 100;
        for _ in 0..10 {
            let _ = tenants.take(0, 10, now);
        }
        second += u64::from(tenants.take(1, 5, now).is_ok()) * 5;
    }
    assert_eq!(second, 500);
}

#[test]
fn a_call_beyond_its_share_waits_for_the_reserve() {
    let tenants = Tenants::new((100, 100), &[1, 1]);
    // 50 are the reserve, and a quarter of them is the first one's burst. It gets the 50 above the
    // reserve too.
    assert!(tenants.take(0, 12, 0).is_ok());
    assert!(tenants.take(0, 38, 0).is_ok());
    assert!(tenants.take(0, 1, 0).is_err());
    assert!(tenants.take(1, 12, 0).is_ok());
    // 38 are left of the whole, so the reserve is whole again in 130 ms. Its share would take
    // longer.
    let wait = Duration::from_millis(130);
    let over = tenants.take(0, 1, 0).unwrap_err().over;
    assert_eq!(over, OverLimit::Until { wait });
}

#[test]
fn a_weight_of_zero_has_only_what_is_left() {
    let tenants = Tenants::new((100, 100), &[0, 1]);
    let got = got(&tenants, &[1000, 90], 1, 60);
    assert_eq!(got[1], 5_400);
    assert!((500..800).contains(&got[0]), "{got:?}");
}

#[test]
fn a_share_is_settled_too() {
    let tenants = Tenants::new((100, 100), &[1, 1]);
    assert!(tenants.take(0, 12, 0).is_ok());
    tenants.settle(0, 12, 5, 0);
    // It may have 7 more of its share, though a greedy one has left only the reserve.
    while tenants.take(1, 1, 0).is_ok() {}
    assert!(tenants.take(0, 7, 0).is_ok());
    assert!(tenants.take(0, 1, 0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A tenant that stays within its share is never rejected for what others take.
    #[test]
    fn a_call_within_its_share_is_admitted(
        weights in proptest::collection::vec(1u32..6, 2..5),
        costs in proptest::collection::vec(1u64..1000, 4),
        tries in 1u64..6,
    ) {
        let (rate, burst) = (1000, 2000);
        let tenants = Tenants::new((rate, burst), &weights);
        let total = u64::from(weights.iter().sum::<u32>());
        // No call costs more than the whole burst of its share.
        let most = |tenant: usize| burst / 4 * u64::from(weights[tenant]) / total;
        let cost = |tenant: usize| costs[tenant % costs.len()].min(most(tenant)).max(1);
        // A little less, since it calls at ticks: up to 10 ms too late, and then on time.
        let own = (cost(0) * 9 / 10).max(1);
        let pause = (own * total * SECOND).div_ceil(rate * u64::from(weights[0]));
        let mut next = SECOND / 100;
        for tick in 1..=1_000 {
            let now = tick * SECOND / 100;
            for tenant in 1..weights.len() {
                for _ in 0..tries {
                    let _ = tenants.take(tenant, cost(tenant), now);
                }
            }
            while next <= now {
                let taken = tenants.take(0, own, now);
                prop_assert!(taken.is_ok(), "at {tick}: {taken:?}");
                next += pause;
            }
        }
    }

    /// A rejected call leaves no trace, in the quota or in the share.
    #[test]
    fn a_rejected_call_charges_no_share(calls in proptest::collection::vec((0usize..2, 1u64..90), 1..60)) {
        let tenants = Tenants::new((10, 100), &[1, 2]);
        for (tenant, cost) in calls {
            let before = tenants.take(tenant, cost, 0);
            if before.is_err() {
                prop_assert_eq!(tenants.take(tenant, cost, 0), before);
            }
        }
    }
}
