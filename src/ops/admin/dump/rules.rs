//! The rules of an endpoint as they are in force, by the names of their annotations.

use serde::Serialize;

use crate::core::cors::{Cors, Origins};
use crate::core::limiter::{Limiter, Which};
use crate::core::rate::Limit;

/// Pages of which origins may score.
#[derive(Serialize)]
pub(super) struct CorsView {
    /// `*`: any.
    origins: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    max_age_s: String,
}

impl CorsView {
    pub(super) fn of(cors: &Cors) -> Self {
        let origins = match cors.origins() {
            Origins::Any => vec!["*".to_owned()],
            Origins::These(origins) => origins.clone(),
        };
        Self {
            origins,
            methods: cors.methods().iter().map(ToString::to_string).collect(),
            headers: cors.headers().iter().map(ToString::to_string).collect(),
            max_age_s: cors.max_age().to_owned(),
        }
    }
}

/// How much may be asked; null is not limited.
#[derive(Serialize)]
pub(super) struct RatesView {
    endpoint: LimitView,
    /// Of one key, or of tokens of one subject.
    key: LimitView,
    under_way: u32,
    refused: u64,
}

#[derive(Serialize)]
struct LimitView {
    per_second: Option<u32>,
    burst: Option<u32>,
    concurrent: Option<u32>,
}

impl RatesView {
    pub(super) fn of(limiter: &Limiter) -> Self {
        Self {
            endpoint: LimitView::of(&limiter.rates.endpoint),
            key: LimitView::of(&limiter.rates.key),
            under_way: limiter.meters.under_way(),
            refused: Which::ALL.into_iter().map(|which| limiter.meters.refused(which)).sum(),
        }
    }
}

impl LimitView {
    fn of(limit: &Limit) -> Self {
        // What is not said is as many as in a second.
        Self { per_second: limit.per_second, burst: limit.burst.or(limit.per_second), concurrent: limit.concurrent }
    }
}
