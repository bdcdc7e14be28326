//! Configurations.

use std::path::PathBuf;

use ei_greengrass::config::{KEYS, Loaded, Sources, TextOrigin, changed_keys, get, load, parse_events, parse_set};
use serde_json::Value;

use crate::input::{Input, SECRET, assert_hidden};

fn sources(origin: u8, text: String) -> Sources {
    let origin = match origin % 3 {
        0 => TextOrigin::Nucleus,
        1 => TextOrigin::Environment,
        _ => TextOrigin::File(PathBuf::from("config.yaml")),
    };
    Sources {
        text: Some((origin, text)),
        current_dir: PathBuf::from("/work"),
        ..Sources::default()
    }
}

/// Everything that is shown of a configuration.
fn shown(loaded: &Loaded) -> Vec<String> {
    let entries = loaded.entries.iter().flat_map(|entry| {
        let value = get(loaded, entry.key).expect("every entry is found");
        [entry.value.clone(), value, entry.remark.clone().unwrap_or_default()]
    });
    let warnings = loaded.warnings.iter().map(ToString::to_string);
    let options = loaded
        .eiparams
        .iter()
        .flat_map(|option| [option.option.clone(), option.meaning.clone()]);
    let debugged = format!("{:?}", loaded.config);
    entries
        .chain(warnings)
        .chain(options)
        .chain(loaded.notes.iter().cloned())
        .chain([debugged])
        .collect()
}

/// JSON and YAML, recipes and deployments of Greengrass.
pub fn config_text(data: &[u8]) {
    let mut input = Input(data);
    let origin = input.byte();
    let sources = sources(origin, input.text().into_owned());
    match load(&sources) {
        Ok(loaded) => {
            let again = load(&sources).expect("the same text");
            assert_eq!(
                loaded.config, again.config,
                "the same text gives the same configuration"
            );
            assert!(changed_keys(&loaded, &again).is_empty());
            assert_eq!(loaded.entries.len(), KEYS.len());
            shown(&loaded);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A text with a secret in it, in the midst of any other text.
pub fn config_secrets(data: &[u8]) {
    let mut input = Input(data);
    let (origin, form) = (input.byte(), input.byte());
    let (before, after) = (input.part_text(), input.part_text());
    let secret = match form % 6 {
        0 => format!("\"preview_token\": \"{SECRET}\""),
        1 => format!("preview_token: {SECRET}"),
        2 => format!("\"iot_endpoint\": \"mqtt://user:{SECRET}@broker:1883\""),
        3 => format!("iot_endpoint: mqtts://user:{SECRET}@broker"),
        4 => format!("\"eiparams\": \"--api-key {SECRET}\""),
        _ => format!("gst_args: rtspsrc:location=rtsp://user:{SECRET}@camera/live"),
    };
    let sources = sources(origin, format!("{before}\n{secret}\n{after}"));
    match load(&sources) {
        Ok(loaded) => assert_hidden(shown(&loaded)),
        Err(error) => assert_hidden([error.to_string()]),
    }
}

/// Words of `--set`: any key with any value.
pub fn config_set(data: &[u8]) {
    let mut input = Input(data);
    let mut sources = Sources {
        current_dir: PathBuf::from("/work"),
        ..Sources::default()
    };
    while !input.is_empty() && sources.sets.len() < 20 {
        let key = usize::from(input.byte());
        let word = match KEYS.get(key) {
            Some(key) => format!("{}={}", key.name, input.part_text()),
            None => input.part_text().into_owned(),
        };
        match parse_set(&word) {
            Ok(set) => sources.sets.push(set),
            Err(error) => drop(error.to_string()),
        }
    }
    match load(&sources) {
        Ok(loaded) => drop(shown(&loaded)),
        Err(error) => drop(error.to_string()),
    }
}

/// Zones, lines and rules.
pub fn events_config(data: &[u8]) {
    let text = Input(data).text().into_owned();
    let Ok(config) = parse_events(&Value::String(text)) else {
        return;
    };
    let again = parse_events(&config.to_json()).expect("what is shown is read");
    assert_eq!(again, config, "what is shown means the same");
    config.unknown_labels(&["person".to_owned()]);
}
