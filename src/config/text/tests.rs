use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Value, ConfigError> {
    parameters(&TextOrigin::Environment, text).map(|found| Value::Object(found.values))
}

fn syntax(text: &str) -> SyntaxProblem {
    match read(text) {
        Err(ConfigError::Syntax { problem, .. }) => problem,
        other => panic!("{text:?} gave {other:?}"),
    }
}

#[test]
fn a_trailing_comma_after_the_last_entry_is_no_error() {
    assert_eq!(
        read("{\t\"a\": [1, 2, ],\n\"b\": {\"c\": 1 , } ,\n }").unwrap(),
        json!({"a": [1, 2], "b": {"c": 1}})
    );
    assert_eq!(
        read(r#"{"a": ",}", "b": "\",]"}"#).unwrap(),
        json!({"a": ",}", "b": "\",]"})
    );
}

#[test]
fn comments_in_json_are_no_error() {
    assert_eq!(
        read("// mine\n{\"a\": 1, // one: \"é\n /* two,\n \"c\": 3, */ \"b\": \"mqtt://h /* no */ \\\" //\", /* last */ }\n// end").unwrap(),
        json!({"a": 1, "b": "mqtt://h /* no */ \" //"})
    );
    // One kind alone.
    assert_eq!(read("{\"a\": 1 // one\n}").unwrap(), json!({"a": 1}));
    assert_eq!(read("{\"a\": 1 /* one */}").unwrap(), json!({"a": 1}));
    assert_eq!(
        read("iot_endpoint: mqtt://h").unwrap(),
        json!({"iot_endpoint": "mqtt://h"})
    );
    let problem = syntax("{ /* é */\n  // x\n  \"a\": oops }");
    assert_eq!((problem.line, problem.column), (3, 8));
}

#[test]
fn commas_without_an_entry_are_errors_where_they_stand() {
    assert_eq!(without_trailing_commas("[,] {,} [1,,] [1,]"), "[,] {,} [1,,] [1 ]");
    assert!(matches!(read("{\"a\": [1,,]}"), Err(ConfigError::Syntax { .. })));
}

#[test]
fn the_three_shapes_give_the_same_parameters_in_json_and_yaml() {
    let expected = json!({"iotcore_qos": "1", "sleep_time_sec": 10});
    for text in [
        r#"{"iotcore_qos":"1","sleep_time_sec":10}"#,
        r#"{"Parameters":{"iotcore_qos":"1","sleep_time_sec":10}}"#,
        r#"{"RecipeFormatVersion":"2020-01-25","ComponentConfiguration":{"DefaultConfiguration":{"Parameters":{"iotcore_qos":"1","sleep_time_sec":10,}}},"Manifests":[]}"#,
        "iotcore_qos: \"1\"\nsleep_time_sec: 10\n",
        "---\nParameters:\n  iotcore_qos: '1'\n  sleep_time_sec: 10\n",
        "RecipeFormatVersion: \"2020-01-25\"\nComponentConfiguration:\n  DefaultConfiguration:\n    Parameters:\n      iotcore_qos: \"1\"\n      sleep_time_sec: 10\nManifests: []\n",
        "\u{feff}{iotcore_qos: '1', sleep_time_sec: 10}",
    ] {
        assert_eq!(read(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn the_documents_of_greengrass_give_the_same_parameters() {
    let expected = json!({"iotcore_qos": 0, "sleep_time_sec": 3});
    let parameters = r#"{"Parameters":{"iotcore_qos":0,"sleep_time_sec":3}}"#;
    let as_text = json!(parameters).to_string();
    let name = "EdgeImpulseLinuxRunnerServiceComponent";
    let other = r#""aws.greengrass.Cli": {"componentVersion": "2.14.0"}"#;
    for text in [
        // A deployment, as the console and `create-deployment --cli-input-json` have it.
        format!(
            r#"{{"targetArn":"arn:aws:iot:eu-west-1:1:thing/t","components":{{{other},"{name}":{{"componentVersion":"1.0.0","configurationUpdate":{{"merge":{as_text},"reset":["/a"]}}}}}}}}"#
        ),
        format!(r#"{{"components":{{"{name}":{{"configurationUpdate":{{"merge":{parameters}}}}}}}}}"#),
        format!(
            r#"{{"components":{{{other},"com.example.Renamed":{{"configurationUpdate":{{"merge":{as_text}}}}}}}}}"#
        ),
        format!("components:\n  {name}:\n    configurationUpdate:\n      merge: |\n        {parameters}\n"),
        format!(
            "components:\n  {name}:\n    configurationUpdate:\n      merge: |\n        Parameters:\n          \
             iotcore_qos: 0\n          sleep_time_sec: 3\n"
        ),
        // Two components with keys of this one: the name decides.
        format!(
            r#"{{"components":{{"com.example.Other":{{"configurationUpdate":{{"merge":{{"iotcore_qos":1}}}}}},"{name}":{{"configurationUpdate":{{"merge":{as_text}}}}}}}}}"#
        ),
        // The value of `create-deployment --components`, and of --update-config, also with the quotes of the shell.
        format!(r#"{{{other},"{name}":{{"componentVersion":"1.0.0","configurationUpdate":{{"merge":{as_text}}}}}}}"#),
        format!(r#"{{"{name}":{{"MERGE":{parameters},"RESET":[]}}}}"#),
        format!(r#"'{{"{name}":{{"MERGE":{parameters}}}}}'"#),
        format!(r#"{{"{name}":{{"MERGE":{{"iotcore_qos":0,"sleep_time_sec":3}}}}}}"#),
        format!(
            r#"{{"com.example.Renamed":{{"MERGE":{parameters}}},"aws.greengrass.Nucleus":{{"MERGE":{{"mqtt":{{"port":443}}}}}}}}"#
        ),
        format!(r#"{{"MERGE":{parameters}}}"#),
        format!(r#"{{"merge":{as_text}}}"#),
        format!(r#"{{"configurationUpdate":{{"merge":{as_text}}}}}"#),
        as_text.clone(),
        // effectiveConfig.yaml
        format!(
            "system:\n  thingName: t\nservices:\n  aws.greengrass.Nucleus:\n    configuration:\n      awsRegion: eu-west-1\n  \
             {name}:\n    componentType: GENERIC\n    configuration:\n      Parameters:\n        iotcore_qos: 0\n        \
             sleep_time_sec: 3\n    lifecycle: {{}}\n"
        ),
        // greengrass-cli, after lines of its log.
        format!(
            "INFO: Socket connection 127.0.0.1:8033 established\nComponent Name: {name}\n    Version: 1.0.0\n    State: \
             RUNNING\n    Configuration: {parameters}\n"
        ),
        format!(
            "Components currently running in Greengrass:\nComponent Name: aws.greengrass.Nucleus\n    Configuration: \
             {{\"a\":1}}\nComponent Name: com.example.Renamed\n    Version: 1.0.0\n    Configuration: {parameters}\n\
             Component Name: aws.greengrass.Cli\n    Configuration: null\n"
        ),
        format!(
            "Component Name: {name}\n    Configuration: {{\n  \"Parameters\": {{\"iotcore_qos\": 0,\n \"sleep_time_sec\": 3}}}}\n\
             device:~$"
        ),
        // Recipes in other cases, parts of them, and the answer of get-component.
        format!(
            r#"{{"recipeformatversion":"2020-01-25","componentconfiguration":{{"defaultconfiguration":{}}}}}"#,
            parameters.to_lowercase()
        ),
        format!(
            r#"{{"RECIPEFORMATVERSION":"2020-01-25","componentConfiguration":{{"defaultConfiguration":{parameters}}}}}"#
        ),
        format!(r#"{{"DefaultConfiguration":{parameters}}}"#),
        format!(r#"{{"configuration":{parameters}}}"#),
        r#"{"PARAMETERS":{"iotcore_qos":0,"sleep_time_sec":3}}"#.to_owned(),
        // Base64 of a recipe in YAML.
        r#"{"recipeOutputFormat":"YAML","recipe":"UmVjaXBlRm9ybWF0VmVyc2lvbjogIjIwMjAtMDEtMjUiCkNvbXBvbmVudENvbmZpZ3VyYXRpb246CiAgRGVmYXVsdENvbmZpZ3VyYXRpb246CiAgICBQYXJhbWV0ZXJzOiB7aW90Y29yZV9xb3M6IDAsIHNsZWVwX3RpbWVfc2VjOiAzfQo="}"#.to_owned(),
    ] {
        for origin in [TextOrigin::Environment, TextOrigin::File("x".into())] {
            let found = super::parameters(&origin, &text).map(|found| Value::Object(found.values));
            assert_eq!(found.unwrap(), expected, "{text}");
        }
    }
}

#[test]
fn the_component_whose_configuration_is_used_is_named() {
    let text = r#"{"services": {"com.example.Renamed": {"configuration": {"iotcore_qos": 0}}, "main": {}}}"#;
    let found = parameters(&TextOrigin::Environment, text).unwrap();
    assert_eq!(
        found.note.as_deref(),
        Some("the configuration is that of the component com.example.Renamed in the configuration of a nucleus")
    );
    assert_eq!(
        parameters(&TextOrigin::Environment, r#"{"iotcore_qos": 0}"#)
            .unwrap()
            .note,
        None
    );
    let deployment = r#"{"components":{"com.example.Renamed":{"componentVersion":"1.0.0","configurationUpdate":{"merge":"{\"iotcore_qos\":0}"}}}}"#;
    assert_eq!(
        parameters(&TextOrigin::Environment, deployment)
            .unwrap()
            .note
            .as_deref(),
        Some("the configuration is that of the component com.example.Renamed in a deployment")
    );
    let update = r#"{"configurationUpdate":{"merge":{"iotcore_qos":0}}}"#;
    assert_eq!(parameters(&TextOrigin::Environment, update).unwrap().note, None);
}

#[test]
fn a_file_without_a_known_key_is_an_error_that_says_what_it_seems_to_be() {
    for (text, seems) in [
        ("", "it is empty"),
        ("{}", "an object with no keys"),
        (r#"{"Parameters": {}}"#, "Parameters with no keys"),
        (
            r#"{"iotcore_qoss": 1}"#,
            "an object with the keys iotcore_qoss (did you mean `iotcore_qos`?)",
        ),
        (r#"{"Version": "2012-10-17", "Statement": []}"#, "an IAM policy"),
        (
            r#"{"recipeOutputFormat": "YAML", "recipe": "?"}"#,
            "the answer of get-component",
        ),
        (r#"{"component": {}, "gdk_version": "1.0.0"}"#, "development kit"),
        (r#"{"name": "x", "dependencies": {}}"#, "a Node.js package"),
        (
            r#"{"components": {"a": {}, "b": {}}}"#,
            "a deployment without EdgeImpulse",
        ),
        (
            r#"{"components": {"a": {"componentVersion": "1"}}}"#,
            "a deployment without a configuration for a",
        ),
        (
            r#"{"components": {"a": {"configurationUpdate": {"reset": [""]}}}}"#,
            "a deployment with the keys reset",
        ),
        (
            r#"{"components": {"a": {"configurationUpdate": {"merge": "{x"}}}}"#,
            "a text as merge that cannot be parsed: line 1",
        ),
        (
            r#"{"a": {"MERGE": {"iotcore_qos": 1}}, "b": {"MERGE": {"gst_args": "x"}}}"#,
            "several components that have keys of this one (a, b)",
        ),
        (
            r#"{"services": {"main": {}, "b": {}}}"#,
            "the configuration of a nucleus without EdgeImpulse",
        ),
        (
            "Component Name: a\n    Version: 1\n    Configuration: null\n",
            "it is empty",
        ),
    ] {
        let error = parameters(&TextOrigin::File("some.json".into()), text)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(seems) && error.starts_with("some.json holds"),
            "{text}: {error}"
        );
    }
    let unknown = parameters(&TextOrigin::Environment, r#"{"iotcore_qoss": 1}"#).unwrap();
    assert_eq!(unknown.values.len(), 1, "a deployment runs, with a warning");
}

#[test]
fn a_file_of_powershell_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let text = "{\"iotcore_qos\": \"ö\"}";
    for big_endian in [false, true] {
        let bytes = "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(|unit| match big_endian {
                true => unit.to_be_bytes(),
                false => unit.to_le_bytes(),
            });
        std::fs::write(&path, bytes.collect::<Vec<u8>>()).unwrap();
        assert_eq!(read_file(&path).unwrap().trim_start_matches('\u{feff}'), text);
    }
}

#[test]
fn a_text_of_another_shape_is_named() {
    for (text, found) in [
        ("[1]", "a list"),
        ("hello", "a text"),
        ("5", "a number"),
        (r#"{"Parameters": "x"}"#, "a text as Parameters"),
        (
            r#"{"RecipeFormatVersion": "2020-01-25"}"#,
            "a recipe without ComponentConfiguration",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Shape { found: f, .. } if f == found),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_text_without_configuration_is_empty() {
    for text in ["", " \n", "null", "{configuration:/Parameters}", "---\n"] {
        let found = parameters(&TextOrigin::Environment, text).unwrap();
        assert!(found.empty.is_some() && found.values.is_empty(), "{text:?}");
    }
}

#[test]
fn bad_json_is_shown_with_line_column_and_a_caret() {
    let problem = syntax("{\n\t\"sleep_time_sec\": 10\n\t\"iotcore_qos\": 1,\n}");
    assert_eq!(problem.message, "expected `,` or `}`");
    assert_eq!((problem.line, problem.column), (3, 2), "{problem}");
    let shown = problem.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[1], "     \"iotcore_qos\": 1,");
    assert_eq!(lines[2], "     ^");
}

#[test]
fn columns_count_characters_and_long_lines_are_cut_around_the_caret() {
    let problem = syntax("{\"ä\": \"ö\" \"x\": 1}");
    assert_eq!((problem.line, problem.column), (1, 11), "{problem}");
    let text = format!("{{{}\"x\" 1}}", "\"k\":\"v\",".repeat(200));
    let shown = syntax(&text).to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[1].len() < 120, "{shown}");
    assert_eq!(lines[1].chars().nth(lines[2].chars().count() - 1), Some('1'), "{shown}");
}

#[test]
fn bad_yaml_is_shown_with_line_and_column() {
    let problem = syntax("device_name: a\n  launch: runner\n");
    assert_eq!(problem.line, 2, "{problem}");
    assert!(problem.to_string().contains("launch: runner"), "{problem}");
}

#[test]
fn an_error_never_shows_a_secret() {
    for text in [
        "{\"preview_token\": \"hush\" \"x\": 1}",
        "{\"iot_endpoint\": \"mqtt://me:hush@h\" \"x\": 1}",
        "{\"eiparams\": \"--api-key hush\" \"x\": 1}",
        "preview_token: hush: x\n",
        "eiparams: --api-key hush\n\tx: 1",
    ] {
        let shown = format!("{0} {0:?}", read(text).unwrap_err());
        assert!(!shown.contains("hush"), "{shown}");
    }
}

#[test]
fn a_key_given_twice_has_its_last_value_and_is_reported() {
    for text in [r#"{"a": 1, "b": 2, "a": 3}"#, "a: 1\nb: 2\na: 3\n"] {
        let found = parameters(&TextOrigin::Environment, text).unwrap();
        assert_eq!(Value::Object(found.values), json!({"a": 3, "b": 2}), "{text}");
        assert_eq!(found.duplicates, ["a"], "{text}");
    }
}

#[test]
fn numbers_that_yaml_alone_knows_stay_visible() {
    assert_eq!(
        read("a: .inf\nb: .nan\nc: 0x10\nd: 5.0\ne: ~\n").unwrap(),
        json!({"a": "inf", "b": "NaN", "c": 16, "d": 5.0, "e": null})
    );
}

#[test]
fn bombs_are_refused_quickly() {
    let aliases: String = (1..12)
        .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(",")))
        .collect();
    let long = "x".repeat(100_000);
    for (name, text) in [
        ("json nesting", "[".repeat(500_000)),
        (
            "json nesting below a key",
            format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100)),
        ),
        ("yaml nesting", format!("a: {}", "[".repeat(500_000))),
        ("yaml block nesting", format!("a:\n{}", "- ".repeat(500_000))),
        ("yaml question marks", "? ".repeat(500_000)),
        (
            "yaml indentation",
            (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        ),
        ("yaml aliases", format!("a0: &a0 [x]\n{aliases}")),
        (
            "yaml long aliases",
            format!("a0: &a0 {long}\nb: [{}]\n", vec!["*a0"; 10_000].join(",")),
        ),
        ("many values", format!("[{}1]", "1,".repeat(400_000))),
        ("many anchors", "&a ".repeat(300_000)),
        ("too long", " ".repeat(MAX_TEXT_BYTES + 1)),
    ] {
        let start = clock_gettime(ClockId::ThreadCPUTime);
        let error = read(&text).expect_err(name);
        let spent = clock_gettime(ClockId::ThreadCPUTime) - start;
        // Read in full, each takes minutes or all memory. The parsers are not optimised in tests. Other processes of
        // the machine do not count.
        assert!(spent.tv_sec < 30, "{name} took {spent:?}: {error}");
        assert!(error.to_string().len() < 1000, "{name}: {error}");
    }
}

#[test]
fn a_file_that_is_missing_a_directory_binary_or_too_long_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    assert!(matches!(read_file(&path), Err(ConfigError::Missing(p)) if p == path));
    assert!(matches!(
        read_file(directory.path()),
        Err(ConfigError::Unreadable { .. })
    ));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(read_file(&path), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&path, " ".repeat(MAX_TEXT_BYTES + 1)).unwrap();
    assert!(matches!(read_file(&path), Err(ConfigError::TooLong { .. })));
    std::fs::write(&path, "{}").unwrap();
    assert_eq!(read_file(&path).unwrap(), "{}");
}

proptest! {
    #[test]
    fn any_text_is_parameters_or_an_error(text in "(?s)[\\[\\]{}:,\"'a0.*&|>\\- \n\t\\\\ü!~]{0,60}") {
        if let Err(error) = read(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn json_with_trailing_commas_reads_as_without(entries in prop::collection::vec(("[a-z]{1,4}", "[ -~]{0,8}"), 1..6)) {
        let object: Map<String, Value> = entries.into_iter().map(|(key, value)| (key, json!([value]))).collect();
        let text = Value::Object(object.clone()).to_string();
        let with_commas = format!("{},\n}}", text.strip_suffix('}').unwrap());
        prop_assert_eq!(read(&with_commas).unwrap(), Value::Object(object));
    }
}
