//! The versions of the model beside the running one: the one before, the one that is tried, and the one that failed last.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::health::one_line;

/// A step of an update of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateStep {
    /// Studio is asked, and the model downloaded.
    Fetching,
    /// This version answers live inputs beside the running model, or waits to take over.
    Trial(u64),
}

/// Deployment versions of the model, beside that of the running one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelVersionStatus {
    /// The version before the running one, which comes back if that fails.
    pub previous: Option<u64>,
    /// Until when the running one has to prove itself.
    pub probation_end: Option<Instant>,
    /// The update in progress.
    pub update: Option<UpdateStep>,
    /// The version that failed last, and why, as a sentence.
    pub bad: Option<(u64, String)>,
}

impl ModelVersionStatus {
    /// The members of the model in the status document.
    pub(super) fn to_json(&self, now: Instant) -> Map<String, Value> {
        let shown = |version: u64| format!("v{version}");
        let left = |end: Instant| end.saturating_duration_since(now).as_secs();
        let update = self.update.map(|step| match step {
            UpdateStep::Fetching => json!({"state": "fetching", "version": null}),
            UpdateStep::Trial(version) => json!({"state": "trial", "version": shown(version)}),
        });
        let bad = self
            .bad
            .as_ref()
            .map(|(version, reason)| json!({"version": shown(*version), "reason": one_line(reason)}));
        Map::from_iter([
            ("previous_version".to_owned(), self.previous.map(shown).into()),
            ("probation_s".to_owned(), self.probation_end.map(left).into()),
            ("update".to_owned(), update.into()),
            ("bad_version".to_owned(), bad.into()),
        ])
    }
}

/// The versions of the model; the updates of the session write them. Clones share the same versions.
#[derive(Debug, Clone, Default)]
pub struct ModelVersionCell(Arc<Mutex<ModelVersionStatus>>);

impl ModelVersionCell {
    /// Changes what is shown.
    pub fn change(&self, change: impl FnOnce(&mut ModelVersionStatus)) {
        change(&mut self.0.lock());
    }

    pub(super) fn get(&self) -> ModelVersionStatus {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_versions_are_shown_as_in_get_model_info() {
        let now = Instant::now();
        let nothing = Value::from(ModelVersionStatus::default().to_json(now));
        let expected = json!({"previous_version": null, "probation_s": null, "update": null, "bad_version": null});
        assert_eq!(nothing, expected);
        let status = ModelVersionStatus {
            previous: Some(3),
            probation_end: Some(now + Duration::from_secs(90)),
            update: Some(UpdateStep::Trial(5)),
            bad: Some((4, "it\ncrashes".to_owned())),
        };
        assert_eq!(
            Value::from(status.to_json(now)),
            json!({
                "previous_version": "v3", "probation_s": 90, "update": {"state": "trial", "version": "v5"},
                "bad_version": {"version": "v4", "reason": "it crashes"},
            })
        );
    }
}
