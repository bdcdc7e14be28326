//! Selects engine and variant of the model, based on the target and the options in `eiparams`.

use super::api::DeploymentTarget;
use super::error::StudioError;

/// The options in `eiparams` that select a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelSelection {
    /// `--force-target`
    pub target: Option<String>,
    /// `--force-engine`
    pub engine: Option<String>,
    /// `--force-variant`, `--quantized`
    pub variant: Option<String>,
    /// `--impulse-id`
    pub impulse_id: Option<u64>,
}

/// Target, engine and variant of the model that is downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentOptions {
    /// Deployment target.
    pub target: String,
    /// Inference engine.
    pub engine: String,
    /// Model variant.
    pub variant: String,
}

/// Finds the target with this name.
pub(super) fn find<'a>(name: &str, targets: &'a [DeploymentTarget]) -> Result<&'a DeploymentTarget, StudioError> {
    targets
        .iter()
        .find(|target| target.format == name)
        .ok_or_else(|| StudioError::NoTarget {
            requested: name.to_owned(),
            known: targets
                .iter()
                .map(|target| target.format.clone())
                .filter(|format| format.starts_with("runner-linux"))
                .collect(),
        })
}

/// Selects engine and variant. `variants` are those of the project's model in Studio's order; unused if one is forced.
///
/// # Errors
/// [`StudioError::NoEngine`], [`StudioError::NoVariant`]: the target does not support the requested one.
pub fn choose(
    target: &DeploymentTarget,
    variants: &[String],
    selection: &ModelSelection,
) -> Result<DeploymentOptions, StudioError> {
    Ok(DeploymentOptions {
        target: target.format.clone(),
        engine: engine(target, selection.engine.as_deref())?,
        variant: match &selection.variant {
            Some(forced) => forced_variant(target, forced)?,
            None => first_variant(target, variants)?,
        },
    })
}

fn engine(target: &DeploymentTarget, forced: Option<&str>) -> Result<String, StudioError> {
    match forced {
        Some(engine) if target.supported_engines.iter().any(|known| known == engine) => Ok(engine.to_owned()),
        Some(engine) => Err(StudioError::NoEngine {
            target: target.format.clone(),
            requested: engine.to_owned(),
            known: target.supported_engines.clone(),
        }),
        None if !target.preferred_engine.is_empty() => Ok(target.preferred_engine.clone()),
        None => Ok(target
            .supported_engines
            .first()
            .cloned()
            .unwrap_or_else(|| "tflite".to_owned())),
    }
}

/// Whether the target supports the variant. A target without a list supports all.
fn supports(target: &DeploymentTarget, variant: &str) -> bool {
    target.model_variants.is_empty()
        || target
            .model_variants
            .iter()
            .any(|known| known.variant == variant && known.supported)
}

fn forced_variant(target: &DeploymentTarget, forced: &str) -> Result<String, StudioError> {
    if supports(target, forced) {
        return Ok(forced.to_owned());
    }
    let hint = target
        .model_variants
        .iter()
        .find(|known| known.variant == forced)
        .and_then(|known| known.hint.clone());
    Err(no_variant(target, Some(forced), hint))
}

fn first_variant(target: &DeploymentTarget, variants: &[String]) -> Result<String, StudioError> {
    let mut supported = variants.iter().filter(|variant| supports(target, variant));
    let first = supported.next().ok_or_else(|| {
        let hint = target.model_variants.iter().find_map(|known| known.hint.clone());
        no_variant(target, None, hint)
    })?;
    if first == "int8"
        && let Some(float) = supported.find(|variant| *variant == "float32")
    {
        return Ok(float.clone());
    }
    Ok(first.clone())
}

fn no_variant(target: &DeploymentTarget, requested: Option<&str>, hint: Option<String>) -> StudioError {
    StudioError::NoVariant {
        target: target.format.clone(),
        requested: requested.map(str::to_owned),
        known: target
            .model_variants
            .iter()
            .filter(|known| known.supported)
            .map(|known| known.variant.clone())
            .collect(),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::studio::api::TargetVariant;

    fn target(variants: &[(&str, bool)]) -> DeploymentTarget {
        DeploymentTarget {
            format: "runner-linux-aarch64".into(),
            preferred_engine: "tflite-eon".into(),
            supported_engines: vec!["tflite".into(), "tflite-eon".into()],
            model_variants: variants
                .iter()
                .map(|(variant, supported)| TargetVariant {
                    variant: (*variant).into(),
                    supported: *supported,
                    hint: (!supported).then(|| format!("{variant} needs another board")),
                })
                .collect(),
        }
    }

    fn variant(
        target_variants: &[(&str, bool)],
        project_variants: &[&str],
        forced: Option<&str>,
    ) -> Result<String, String> {
        let project_variants: Vec<_> = project_variants.iter().map(|v| (*v).to_owned()).collect();
        let selection = ModelSelection {
            variant: forced.map(str::to_owned),
            ..ModelSelection::default()
        };
        choose(&target(target_variants), &project_variants, &selection)
            .map(|options| options.variant)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_first_supported_variant_is_used_and_int8_only_without_float32() {
        let all = [("int8", true), ("float32", true), ("akida", false)];
        for (target_variants, project_variants, expected) in [
            (&all[..], &["int8", "float32"][..], "float32"),
            (&all, &["float32", "int8"], "float32"),
            (&all, &["int8"], "int8"),
            (&all, &["akida", "int8"], "int8"),
            (&[("int8", true), ("float32", false)], &["int8", "float32"], "int8"),
            (&[("akida", true), ("float32", true)], &["akida", "float32"], "akida"),
            (&[], &["int8", "float32"], "float32"),
            (&[], &["akida"], "akida"),
        ] {
            assert_eq!(
                variant(target_variants, project_variants, None).as_deref(),
                Ok(expected),
                "{target_variants:?} {project_variants:?}"
            );
        }
    }

    #[test]
    fn a_forced_variant_is_used_and_an_unsupported_one_is_refused_with_alternatives() {
        let has = [("int8", true), ("float32", false)];
        assert_eq!(variant(&has, &[], Some("int8")).as_deref(), Ok("int8"));
        for requested in ["float32", "akida"] {
            let text = variant(&has, &["int8"], Some(requested)).unwrap_err();
            assert!(text.contains(requested) && text.contains("int8"), "{text}");
        }
        let text = variant(&has, &["float32"], None).unwrap_err();
        assert!(text.contains("needs another board"), "{text}");
    }

    #[test]
    fn the_engine_is_the_preferred_one_unless_a_supported_one_is_forced() {
        let target = target(&[]);
        let variants = ["float32".to_owned()];
        let with = |engine: Option<&str>| {
            let selection = ModelSelection {
                engine: engine.map(str::to_owned),
                ..ModelSelection::default()
            };
            choose(&target, &variants, &selection).map(|options| options.engine)
        };
        assert_eq!(with(None).unwrap(), "tflite-eon");
        assert_eq!(with(Some("tflite")).unwrap(), "tflite");
        let text = with(Some("tensorrt")).unwrap_err().to_string();
        assert!(
            text.contains("tensorrt") && text.contains("tflite, tflite-eon"),
            "{text}"
        );
    }

    #[test]
    fn the_error_for_an_unknown_target_lists_the_known_ones() {
        let text = find("runner-linux-armv7", &[target(&[])]).unwrap_err().to_string();
        assert!(
            text.contains("runner-linux-armv7") && text.contains("runner-linux-aarch64"),
            "{text}"
        );
    }
}
