//! Reads the S3 index of earlier versions of this component. It is a text file: `= <bucket>/<prefix>` is the location of the
//! lines that follow, `<id>` adds a pair, and `- <id>` removes a pair.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::Path;

use uuid::Uuid;

use crate::cache::names::pair_id;
use crate::cache::s3_location::S3Location;

/// Pairs, grouped by location.
type UploadedPairs = Vec<(S3Location, Vec<Uuid>)>;

/// Returns the pairs in the file; `None`: there is no file. Skips damaged lines, which a power cut can leave behind.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read(path: &Path) -> io::Result<Option<UploadedPairs>> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let removed: HashSet<_> = text
        .lines()
        .filter_map(|line| pair_id(line.strip_prefix("- ")?))
        .collect();
    let mut uploaded = UploadedPairs::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        if let Some((bucket, prefix)) = line.strip_prefix("= ").and_then(|line| line.split_once('/')) {
            let location = S3Location {
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
            };
            uploaded.push((location, Vec::new()));
        } else if let (Some(id), Some((_, ids))) = (pair_id(line), uploaded.last_mut())
            && !removed.contains(&id)
        {
            ids.push(id);
        }
    }
    Ok(Some(uploaded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(text: &[u8]) -> Vec<(String, Vec<Uuid>)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let uploaded = read(file.path()).unwrap().unwrap();
        let pairs = uploaded.into_iter();
        pairs
            .map(|(location, ids)| (format!("{}|{}", location.bucket, location.prefix), ids))
            .collect()
    }

    #[test]
    fn only_a_half_written_line_is_lost() {
        let ids = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
        let half = &ids[1].to_string()[..20];
        let text = format!(
            "= photos/a_v1/\n{}\n{half}\n\u{fffd}\n= photos/b c_v2/\n{}\n{half}",
            ids[0], ids[2]
        );
        assert_eq!(
            imported(text.as_bytes()),
            [
                ("photos|a_v1/".to_owned(), vec![ids[0]]),
                ("photos|b c_v2/".to_owned(), vec![ids[2]])
            ]
        );
    }

    #[test]
    fn any_text_can_be_read_and_a_missing_file_is_none() {
        assert_eq!(imported(b""), []);
        assert_eq!(imported(b"\xff\xfe\n= x\n- y\n"), []);
        assert_eq!(read(Path::new("/nonexistent/s3-index")).unwrap(), None);
    }
}
