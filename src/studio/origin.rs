//! What requests a model.

use serde::{Deserialize, Serialize};

/// The configuration that requested a model. Without a network, only an earlier model of the same origin is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOrigin {
    /// Base address of Studio.
    pub studio: String,
    /// Secrets Manager secret id.
    pub secret_id: String,
    /// Key in the secret.
    pub secret_name: String,
    /// `--impulse-id`
    pub impulse_id: Option<u64>,
}
