//! Suggests the name that a misspelt one means.

/// The name that a misspelt one most likely means. Of the letters of a name, one in `part` may be wrong, at least one.
pub(super) fn nearest<'n>(given: &str, names: impl IntoIterator<Item = &'n str>, part: usize) -> Option<&'n str> {
    let given = given.trim().to_ascii_lowercase().replace('-', "_");
    let allowed = |name: &str| 1.max(name.len() / part);
    names
        .into_iter()
        // Skips long names, for which the comparison takes long.
        .filter(|name| name.len().abs_diff(given.len()) <= allowed(name))
        .map(|name| (strsim::levenshtein(&given, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed(name))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
