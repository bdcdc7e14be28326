//! Finds the parameters in the documents that contain them: a recipe, a deployment, the configuration of a nucleus.
//!
//! Names of these documents are accepted in any case, because the development kit writes recipes in lower case. A text
//! where an object is expected is parsed: deployments contain the configuration as text.

use base64::Engine;
use serde_json::{Map, Value};

use super::error;
use super::keys;
use crate::util::redact;

/// The component, as recipes and deployments name it.
const COMPONENT: &str = "EdgeImpulseLinuxRunnerServiceComponent";
/// Most objects around the parameters. A deployment has five.
const MAX_LEVELS: usize = 12;
/// Most keys that an error names.
const MAX_NAMED_KEYS: usize = 6;
/// Names of objects that only surround the next one.
const WRAPPERS: [&str; 5] = [
    "DefaultConfiguration",
    "configurationUpdate",
    "configuration",
    "deployment",
    "deploymentDocument",
];

/// Parses text inside the document.
///
/// # Errors
/// What is wrong with it, as text.
pub(super) type ParseText<'a> = dyn FnMut(&str) -> Result<Value, String> + 'a;

/// The parameters of a document.
#[derive(Debug)]
pub(super) struct FoundParameters {
    pub(super) values: Map<String, Value>,
    /// Known keys next to `Parameters`.
    pub(super) outside: Vec<String>,
    /// What the document is.
    document: String,
    /// The component whose parameters they are, where the document may have several.
    component: Option<String>,
}

impl FoundParameters {
    pub(super) fn has_known_key(&self) -> bool {
        has_known_key(&self.values)
    }

    /// What the document seems to be, when it has no known key.
    pub(super) fn describe(&self) -> String {
        format!("{} with {}", self.document, describe_keys(&self.values))
    }

    /// Which part of the document is used, where it may contain the configuration of several components.
    pub(super) fn note(&self) -> Option<String> {
        let component = redact::credentials(self.component.as_deref()?);
        Some(format!(
            "the configuration is that of the component {component} in {}",
            self.document
        ))
    }
}

/// Finds the parameters.
///
/// # Errors
/// A description of what was found instead.
pub(super) fn find(document: Value, parse: &mut ParseText<'_>) -> Result<FoundParameters, String> {
    let mut object = as_object(document, "", parse)?;
    let mut document = None;
    let mut component = None;
    for _ in 0..MAX_LEVELS {
        if has(&object, "RecipeFormatVersion") || has(&object, "ComponentConfiguration") {
            document.get_or_insert("a recipe");
            for name in ["ComponentConfiguration", "DefaultConfiguration"] {
                let inner = take(&mut object, name).ok_or_else(|| format!("a recipe without {name}"))?;
                object = as_object(inner, name, parse)?;
            }
            if !has(&object, "Parameters") {
                return Err("a recipe without Parameters".to_owned());
            }
        }
        if let Some(inner) = take(&mut object, "Parameters") {
            let outside = object.into_iter().map(|(key, _)| key);
            return Ok(FoundParameters {
                outside: outside.filter(|key| keys::find(key).is_some()).collect(),
                values: as_object(inner, "Parameters", parse)?,
                document: document.unwrap_or("Parameters").to_owned(),
                component,
            });
        }
        if has_known_key(&object) {
            break;
        }
        // The only entry of a component may itself contain `configurationUpdate`, which is no name of a component.
        let is_entry = has(&object, "configurationUpdate") || has(&object, "merge");
        let entry = if let Some(components) = take_object(&mut object, "components") {
            Some((components, *document.insert("a deployment")))
        } else if let Some(services) = take_object(&mut object, "services") {
            Some((services, *document.insert("the configuration of a nucleus")))
        } else if !is_entry && object.values().any(is_component_entry) {
            let kind = document.get_or_insert("a configuration update");
            Some((std::mem::take(&mut object), *kind))
        } else {
            None
        };
        if let Some((entries, kind)) = entry {
            let (name, value) = choose(entries, kind)?;
            object = as_object(value, &name, parse)?;
            if !["configurationUpdate", "configuration", "merge"]
                .iter()
                .any(|name| has(&object, name))
            {
                return Err(format!("{kind} without a configuration for {}", error::name(&name)));
            }
            component = Some(error::name(&name));
        } else if let Some(recipe) = take_encoded_recipe(&mut object) {
            object = as_object(Value::String(recipe), "recipe", parse)?;
        } else if let Some(merge) = take(&mut object, "merge") {
            document.get_or_insert("a configuration update");
            object = as_object(merge, "merge", parse)?;
        } else if let Some((name, inner)) = WRAPPERS.iter().find_map(|name| Some((name, take(&mut object, name)?))) {
            object = as_object(inner, name, parse)?;
        } else {
            break;
        }
    }
    Ok(FoundParameters {
        document: document.unwrap_or_else(|| recognize(&object)).to_owned(),
        values: object,
        outside: Vec::new(),
        component,
    })
}

/// The recipe in the answer of `get-component`, which is base64 text.
fn take_encoded_recipe(object: &mut Map<String, Value>) -> Option<String> {
    if !has(object, "recipeOutputFormat") {
        return None;
    }
    let Some(Value::String(encoded)) = take(object, "recipe") else {
        return None;
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    String::from_utf8(bytes).ok()
}

/// A document that people confuse with a configuration.
fn recognize(object: &Map<String, Value>) -> &'static str {
    const DOCUMENTS: [(&[&str], &str); 9] = [
        (
            &["recipeOutputFormat"],
            "the answer of get-component with a recipe that cannot be decoded,",
        ),
        (&["Manifests"], "a recipe without configuration"),
        (
            &["component", "gdk_version"],
            "the configuration of the Greengrass development kit",
        ),
        (&["Statement"], "an IAM policy"),
        (&["system"], "the configuration of a nucleus without components"),
        (&["name", "dependencies"], "the description of a Node.js package"),
        (&["model_parameters"], "the information of a model"),
        (&["targetArn"], "a deployment without components"),
        (&["ei_api_key"], "a secret for Secrets Manager"),
    ];
    let known = DOCUMENTS
        .iter()
        .find(|(names, _)| names.iter().all(|name| has(object, name)));
    known.map_or("an object", |(_, text)| text)
}

fn describe_keys(object: &Map<String, Value>) -> String {
    if object.is_empty() {
        return "no keys".to_owned();
    }
    let mut names: Vec<_> = object
        .keys()
        .take(MAX_NAMED_KEYS)
        .map(|key| describe_key(key))
        .collect();
    if object.len() > MAX_NAMED_KEYS {
        names.push("...".to_owned());
    }
    format!("the keys {}", names.join(", "))
}

fn describe_key(key: &str) -> String {
    let name = redact::credentials(&error::name(key));
    match keys::nearest(key) {
        Some(nearest) => format!("{name} (did you mean `{}`?)", nearest.name),
        None => name,
    }
}

/// The entry of this component: by its name, or the only one that contains a known key, because a recipe can be
/// renamed.
fn choose(components: Map<String, Value>, document: &str) -> Result<(String, Value), String> {
    let mut candidates = Vec::new();
    let mut only = None;
    let is_alone = components.len() == 1;
    for (name, value) in components {
        if is_component(&name) {
            return Ok((name, value));
        }
        if mentions_known_key(&value) {
            candidates.push((name, value));
        } else if is_alone {
            only = Some((name, value));
        }
    }
    if candidates.len() > 1 {
        let names: Vec<_> = candidates.iter().map(|(name, _)| error::name(name)).collect();
        return Err(format!(
            "{document} with several components that have keys of this one ({}), and none is named {COMPONENT}",
            names.join(", ")
        ));
    }
    let found = candidates.pop().or(only);
    found.ok_or_else(|| format!("{document} without {COMPONENT}"))
}

/// Whether the value is the entry of one component, as `--update-config` and `create-deployment --components` take it.
fn is_component_entry(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|entry| has(entry, "merge") || has(entry, "configurationUpdate"))
}

fn mentions_known_key(value: &Value) -> bool {
    match value {
        Value::Object(object) => has_known_key(object) || object.values().any(mentions_known_key),
        Value::String(text) => text_mentions_known_key(text),
        _ => false,
    }
}

/// Whether a JSON text has a known key.
pub(super) fn text_mentions_known_key(text: &str) -> bool {
    text.trim_start().starts_with('{') && keys::KEYS.iter().any(|key| text.contains(&format!("\"{}\"", key.name)))
}

/// Whether this is the name of the component.
pub(super) fn is_component(name: &str) -> bool {
    name.eq_ignore_ascii_case(COMPONENT)
}

fn has_known_key(object: &Map<String, Value>) -> bool {
    object.keys().any(|key| keys::find(key).is_some())
}

fn key_of<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a String> {
    object.keys().find(|key| key.eq_ignore_ascii_case(name))
}

fn has(object: &Map<String, Value>, name: &str) -> bool {
    key_of(object, name).is_some()
}

fn take(object: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let key = key_of(object, name)?.clone();
    object.remove(&key)
}

fn take_object(object: &mut Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
    let key = key_of(object, name)?.clone();
    match object.get_mut(&key)? {
        Value::Object(inner) => Some(std::mem::take(inner)),
        _ => None,
    }
}

fn as_object(value: Value, name: &str, parse: &mut ParseText<'_>) -> Result<Map<String, Value>, String> {
    let kind = match value {
        Value::Object(object) => return Ok(object),
        Value::Null if name == "Parameters" => return Ok(Map::new()),
        Value::String(text) => {
            let place = if name.is_empty() {
                "a text".to_owned()
            } else {
                format!("a text as {}", error::name(name))
            };
            let looks_like_json = text.trim_start().starts_with('{');
            if name.is_empty() && !looks_like_json {
                return Err(place);
            }
            return match parse(&text) {
                Ok(Value::Object(object)) => Ok(object),
                Err(problem) if looks_like_json => Err(format!("{place} that cannot be parsed: {problem}")),
                _ => Err(place),
            };
        }
        Value::Null => "nothing",
        Value::Bool(_) => "a switch",
        Value::Number(_) => "a number",
        Value::Array(_) => "a list",
    };
    Err(if name.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind} as {}", error::name(name))
    })
}
