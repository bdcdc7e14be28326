//! Where the picture of a message is in S3.

use crate::model::ModelInfo;

/// Where pairs go in S3, as an inference message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with: `<model name>_v<deploy version>/`.
    pub prefix: String,
}

/// Most bytes of a model's name in a key: S3 accepts keys of 1024 bytes, and version, id and extension follow.
const MAX_NAME_BYTES: usize = 900;

impl S3Location {
    /// The location for the inferences of this model. Its name is changed only where S3 cannot accept it: control characters,
    /// which XML cannot contain, and path segments of dots become `_`, and a very long name is cut.
    pub fn new(bucket: &str, model: &ModelInfo) -> Self {
        Self {
            bucket: bucket.to_owned(),
            prefix: format!("{}_v{}/", key_name(&model.name), model.deploy_version),
        }
    }
}

fn key_name(name: &str) -> String {
    let segment = |segment: &str| match segment {
        "." | ".." => "_".to_owned(),
        other => other.replace(|c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'), "_"),
    };
    let mut name = name.split('/').map(segment).collect::<Vec<_>>().join("/");
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelInfo {
        ModelInfo {
            name: name.to_owned(),
            deploy_version: 25,
            ..ModelInfo::with_parameters(serde_json::Map::new())
        }
    }

    #[test]
    fn the_prefix_consists_of_the_model_name_and_its_deployment() {
        let location = S3Location::new("photos", &model("Fruit sorter"));
        assert_eq!(
            (location.bucket.as_str(), location.prefix.as_str()),
            ("photos", "Fruit sorter_v25/")
        );
    }

    #[test]
    fn a_name_is_changed_only_where_a_key_cannot_contain_it() {
        let prefix = |name: &str| S3Location::new("photos", &model(name)).prefix;
        assert_eq!(prefix("Äpfel & Birnen/süß (2)"), "Äpfel & Birnen/süß (2)_v25/");
        assert_eq!(prefix("../a\n\0b/./c"), "_/a__b/_/c_v25/");
        assert_eq!(prefix(&"ä".repeat(1000)).len(), 900 + "_v25/".len());
    }
}
