//! How the channel names the running model.

use serde_json::{Value, json};

use crate::model::ModelInfo;

/// `inferenceInfo`: which model runs.
pub(super) fn inference_info(info: &ModelInfo) -> Value {
    json!({
        "projectId": info.project_id,
        "projectName": info.name,
        "projectOwner": info.owner,
        "deploymentVersion": info.deploy_version,
        "modelType": info.model_type,
    })
}
