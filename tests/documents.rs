//! The documents: links lead somewhere, and tables and examples are those of the program.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::daemon::Site;

const DOCUMENTS: [&str; 6] = [
    "README.md",
    "recipes/README.md",
    "recipes/CHANGELOG.md",
    "artifacts/README.md",
    "tests/README.md",
    "src/README.md",
];
const OPERATION: &str = "recipes/README.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The text of a document without its code blocks.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// Targets of the links and pictures in a document.
fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> Vec<String> {
    let text = prose(text);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for path in DOCUMENTS {
        let text = document(path);
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            checked += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => root().join(path),
                file => root().join(path).parent().unwrap().join(file),
            };
            let found = target.exists()
                && (fragment.is_empty()
                    || std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).iter().any(|a| a == fragment)));
            if !found {
                broken.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(checked > 15, "the links are found");
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let is_path = |text: &str| {
        ["src/", "tests/", "artifacts/", "recipes/"]
            .iter()
            .any(|top| text.starts_with(top))
            && !text.contains(['*', ' ', '<'])
    };
    let mut missing = Vec::new();
    for path in DOCUMENTS {
        let text = document(path);
        for name in quoted(&prose(&text)).filter(|name| is_path(name)) {
            if !root().join(name).exists() {
                missing.push(format!("{path}: {name}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// The rows of the tables below a heading, up to the next heading of its level, without headings and rules: cells of each.
pub fn table_rows<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = text
        .split_once(heading)
        .unwrap_or_else(|| panic!("no heading {heading:?}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect());
    cells
        .filter(|cells: &Vec<_>| !matches!(cells[0], "---" | "camera" | "command") && !cells[0].starts_with("line"))
        .collect()
}

/// What stands between backticks.
pub fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_table_of_keys_names_every_key() {
    let text = document(OPERATION);
    let missing: Vec<_> = ei_greengrass::config::KEYS
        .iter()
        .map(|key| key.name)
        .filter(|key| !text.contains(&format!("`{key}`")))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

/// The Rust and shell files in these folders.
fn source_text(folders: &[&str]) -> String {
    fn collect(directory: PathBuf, all: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(path, all);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "rs" || extension == "sh")
            {
                all.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    for folder in folders {
        collect(root().join(folder), &mut all);
    }
    all
}

/// All text of the program and of the install script, with texts that are broken over lines joined.
fn program_text() -> String {
    let all = source_text(&["src", "artifacts"]);
    let mut lines = all.split("\\\n");
    let mut joined = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        joined.push_str(line.trim_start());
    }
    joined
}

/// In the source, the message of a log line and the names of its fields (`retry_in=...`) are separate texts.
fn message_and_field(part: &str) -> Vec<&str> {
    match part.strip_suffix('=') {
        Some(text) => text.rsplitn(2, ' ').collect(),
        None => vec![part],
    }
}

#[test]
fn the_table_of_commands_is_that_of_the_program() {
    let table = ei_greengrass::commands::markdown_table();
    assert!(document(OPERATION).contains(&table), "replace the table by:\n{table}");
}

#[test]
fn every_log_line_in_the_troubleshooting_table_exists() {
    let (text, program) = (document(OPERATION), program_text());
    let rows = table_rows(&text, "## When something is wrong");
    assert!(rows.len() > 20, "the tables are found: {rows:?}");
    let prefixes = ["warning:", "error:"];
    let unknown: Vec<_> = rows
        .iter()
        .flat_map(|cells| quoted(cells[0]))
        .filter(|line| *line != "check")
        .flat_map(|line| line.split("..."))
        .flat_map(message_and_field)
        .map(|part| {
            prefixes
                .iter()
                .fold(part.trim(), |part, prefix| part.trim_start_matches(prefix).trim())
        })
        // Single words and punctuation between two "..." prove nothing.
        .filter(|part| part.len() > 6 && !program.contains(part))
        .collect();
    assert_eq!(unknown, Vec::<&str>::new());
}

#[test]
fn every_row_about_power_cuts_names_a_test_that_exists() {
    let text = document("README.md");
    let rows = table_rows(&text, "\n## What a power cut may cost");
    assert!(rows.len() > 10, "the table is found: {rows:?}");
    let sources = source_text(&["src", "tests"]);
    for row in &rows[1..] {
        let names: Vec<_> = quoted(row[row.len() - 1]).collect();
        assert_eq!(names.len(), 1, "{row:?}");
        assert!(sources.contains(&format!("fn {}(", names[0])), "{row:?}");
    }
}

#[test]
fn every_camera_line_in_the_table_is_understood() {
    let text = document(OPERATION);
    let rows = table_rows(&text, "\n## Cameras");
    assert!(rows.len() > 6, "the table is found: {rows:?}");
    for cells in rows {
        check_accepts(&format!("gst_args={}", quoted(cells[1]).next().unwrap()));
    }
}

/// `check` with one setting: it runs, and GStreamer understands the line.
fn check_accepts(setting: &str) {
    let output = Site::new()
        .bare_command()
        .args(["check", "--model", "builtin:ball", "--set", setting])
        .output()
        .unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{setting}: {report}");
    // The line of a pipeline that GStreamer refuses begins otherwise.
    assert!(report.contains("\n  runs: "), "{setting}: {report}");
}

#[test]
fn the_minimal_configuration_of_the_readme_runs() {
    let readme = document("README.md");
    let (_, block) = readme.split_once("```json\n").unwrap();
    let configuration: serde_json::Value = serde_json::from_str(block.split_once("```").unwrap().0).unwrap();
    let parameters = configuration["Parameters"].as_object().unwrap();
    assert_ne!(parameters.get("device_name"), Some(&json!(null)));
    check_accepts(&format!("gst_args={}", parameters["gst_args"].as_str().unwrap()));
}

#[test]
fn the_first_deployment_infers_without_a_camera_and_a_key() {
    let text = document(OPERATION);
    let section = text.split_once("### The first deployment").unwrap().1;
    let block = section.split_once("```json").unwrap().1.split_once("```").unwrap().0;
    let site = Site::new();
    let config = site.write("first.json", block);
    let output = site
        .bare_command()
        .arg("check")
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("`run` starts with this configuration\n"), "{report}");
    assert!(!report.contains("\nWarnings\n"), "{report}");
}

#[test]
fn the_readme_is_short() {
    assert!(document("README.md").lines().count() <= 150);
}
