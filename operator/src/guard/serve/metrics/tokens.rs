//! What is counted of tokens that gave no key.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// All counters of tokens.
#[derive(Clone, Debug)]
pub(in crate::guard::serve) struct TokenMetrics {
    /// Not readable, for somebody else, or of another time.
    pub(in crate::guard::serve) invalid: IntCounter,
    /// No key of the issuer signed it.
    pub(in crate::guard::serve) forged: IntCounter,
    /// Too many others were to be verified.
    pub(in crate::guard::serve) overloaded: IntCounter,
}

impl TokenMetrics {
    pub(in crate::guard::serve) fn register(
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let refused = IntCounterVec::new(
            Opts::new(
                "jiuzhou_tokens_refused_total",
                "Tokens that gave no key for a limit.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            invalid: refused.with_label_values(&["Invalid"]),
            forged: refused.with_label_values(&["Forged"]),
            overloaded: refused.with_label_values(&["Overloaded"]),
        })
    }
}
