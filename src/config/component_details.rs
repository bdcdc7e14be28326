//! The output of `greengrass-cli component details` and `component list`.

use super::json_text::value_length;
use super::shape;

const NAME: &str = "Component Name:";
const CONFIGURATION: &str = "Configuration:";

/// One component in the output.
struct Entry<'a> {
    name: &'a str,
    /// Where the text of its configuration begins and ends, in bytes.
    start: usize,
    end: usize,
}

/// The configuration in the output: that of this component, else the first with a known key, else the first. `None`:
/// the text is something else. Everything before it is replaced by blanks, so that lines and columns stay the same.
pub(super) fn configuration(text: &str) -> Option<String> {
    let entries = entries(text);
    let of = |entry: &Entry| text.get(entry.start..entry.end).unwrap_or_default().trim();
    let used = entries
        .iter()
        .find(|entry| shape::is_component(entry.name))
        .or_else(|| entries.iter().find(|entry| shape::text_mentions_known_key(of(entry))))
        .or_else(|| entries.first())?;
    let before = text.get(..used.start)?.chars();
    let blank: String = before.map(|c| if c == '\n' { c } else { ' ' }).collect();
    Some(format!("{blank}{}", text.get(used.start..used.end)?))
}

/// The components with a configuration. There may be lines of a log before them.
fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut name = "";
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if let Some(found) = trimmed.strip_prefix(NAME) {
            name = found.trim();
        } else if let Some(found) = line.find(CONFIGURATION)
            && trimmed.starts_with(CONFIGURATION)
            && !name.is_empty()
        {
            let start = at + found + CONFIGURATION.len();
            let end = start + value_length(&text[start..]);
            entries.push(Entry { name, start, end });
            name = "";
        }
        at += line.len();
    }
    entries
}
