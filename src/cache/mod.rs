//! Pairs of picture and message, kept for later.

/// Where pairs go in S3, as an inference message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with: `<model name>_v<deploy version>/`.
    pub prefix: String,
}
