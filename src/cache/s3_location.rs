//! The location of a pair in S3.

use crate::config::S3Bucket;
use crate::model::ModelInfo;

/// Bucket and key prefix of pairs, as an inference message contains them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// Prefix of every key: the prefix of `s3_bucket`, then `<model name>_v<deploy version>/`.
    pub prefix: String,
}

/// Most bytes of prefix and model name in a key: S3 accepts keys of 1024 bytes, and version, id and extension follow.
const MAX_NAME_BYTES: usize = 900;

impl S3Location {
    /// The location for the inferences of this model. The model's name is changed only if S3 cannot accept it: control characters
    /// (XML cannot contain them) and the path segments `.` and `..` become `_`, and a very long name is cut.
    pub fn new(bucket: &S3Bucket, model: &ModelInfo) -> Self {
        let max_bytes = MAX_NAME_BYTES.saturating_sub(bucket.prefix.len());
        let name = key_name(&model.name, max_bytes);
        Self {
            bucket: bucket.name.clone(),
            prefix: format!("{}{name}_v{}/", bucket.prefix, model.deploy_version),
        }
    }
}

fn key_name(name: &str, max_bytes: usize) -> String {
    let segment = |segment: &str| match segment {
        "." | ".." => "_".to_owned(),
        other => other.replace(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'), "_"),
    };
    let mut name = name.split('/').map(segment).collect::<Vec<_>>().join("/");
    name.truncate(name.floor_char_boundary(max_bytes));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(prefix: &str) -> S3Bucket {
        S3Bucket {
            name: "photos".to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    fn model(name: &str) -> ModelInfo {
        ModelInfo {
            name: name.to_owned(),
            deploy_version: 25,
            ..ModelInfo::with_parameters(serde_json::Map::new())
        }
    }

    #[test]
    fn the_prefix_consists_of_the_model_name_and_its_deployment() {
        let location = S3Location::new(&bucket(""), &model("Fruit sorter"));
        assert_eq!(
            (location.bucket.as_str(), location.prefix.as_str()),
            ("photos", "Fruit sorter_v25/")
        );
    }

    #[test]
    fn a_name_is_changed_only_if_a_key_cannot_contain_it() {
        let prefix = |name: &str| S3Location::new(&bucket(""), &model(name)).prefix;
        assert_eq!(prefix("Äpfel & Birnen/süß (2)"), "Äpfel & Birnen/süß (2)_v25/");
        assert_eq!(prefix("../a\n\0b/./c"), "_/a__b/_/c_v25/");
        assert_eq!(prefix(&"ä".repeat(1000)).len(), 900 + "_v25/".len());
    }

    #[test]
    fn the_prefix_of_the_bucket_stands_before_that_of_the_model() {
        let prefix = |name: &str| S3Location::new(&bucket("site/1/"), &model(name)).prefix;
        assert_eq!(prefix("Fruit sorter"), "site/1/Fruit sorter_v25/");
        assert_eq!(prefix(&"a".repeat(1000)).len(), 900 + "_v25/".len());
    }
}
