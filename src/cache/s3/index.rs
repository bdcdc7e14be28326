//! Which pairs this device uploaded, so that `clear_cache` removes those and nothing else.
//!
//! A text file that only grows, until it is written anew without what is no longer needed. `= <bucket>/<prefix>` names the
//! place of the lines that follow, `<id>` is a pair there, `- <id>` takes one out again. A pair is recorded before its upload
//! begins, so an object that is not recorded cannot be; removing one that never came to be is no fault in S3.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::cache::names::pair_id;
use crate::cache::{CacheError, S3Location};

/// Pairs that are remembered: 18 MB on disk. Beyond it the longest uploaded are forgotten, and stay in the bucket.
const MOST: usize = 500_000;

/// The file.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    most: usize,
    /// `None`: to be opened (again).
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    lines: usize,
    /// The place named last.
    place: Option<S3Location>,
}

/// Where pairs are, longest uploaded first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uploaded {
    pub(super) places: Vec<S3Location>,
    /// With the number of their place.
    pub(super) pairs: Vec<(Uuid, usize)>,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Place(S3Location),
    Pair(Uuid),
    Removed(Uuid),
    /// The half line of a power cut.
    Damaged,
}

impl Line {
    fn read(text: &str) -> Self {
        if let Some(place) = text.strip_prefix("= ") {
            return match place.split_once('/') {
                Some((bucket, prefix)) => Self::Place(S3Location {
                    bucket: bucket.to_owned(),
                    prefix: prefix.to_owned(),
                }),
                None => Self::Damaged,
            };
        }
        match text.strip_prefix("- ") {
            Some(id) => pair_id(id).map_or(Self::Damaged, Self::Removed),
            None => pair_id(text).map_or(Self::Damaged, Self::Pair),
        }
    }
}

impl Index {
    /// An index in that file, which is neither made nor read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            most: MOST,
            open: None,
        }
    }

    /// Remembers a pair. Not forced to the disk: a power cut may cost the last seconds.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn record(&mut self, place: &S3Location, id: Uuid) -> Result<(), CacheError> {
        let named = self.opened()?.place.as_ref() == Some(place);
        let text = if named {
            format!("{id}\n")
        } else {
            format!("= {}/{}\n{id}\n", place.bucket, place.prefix)
        };
        self.append(&text, if named { 1 } else { 2 })?;
        if let Some(open) = &mut self.open {
            open.place = Some(place.clone());
            if open.lines > self.most + self.most / 4 {
                return self.compact();
            }
        }
        Ok(())
    }

    /// Forgets one pair.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn forget(&mut self, id: Uuid) -> Result<(), CacheError> {
        self.opened()?;
        self.append(&format!("- {id}\n"), 1)
    }

    /// Where this pair is.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn find(&self, id: Uuid) -> Result<Option<S3Location>, CacheError> {
        let (mut place, mut found) = (None, None);
        self.each(|line| match line {
            Line::Place(named) => place = Some(named),
            Line::Pair(pair) if pair == id => found.clone_from(&place),
            Line::Removed(pair) if pair == id => found = None,
            Line::Pair(_) | Line::Removed(_) | Line::Damaged => {}
        })?;
        Ok(found)
    }

    /// All pairs.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn uploaded(&self) -> Result<Uploaded, CacheError> {
        let (mut all, mut removed) = (Uploaded::default(), HashSet::new());
        let mut current = None;
        self.each(|line| match line {
            Line::Place(place) => {
                let known = all.places.iter().position(|known| *known == place);
                current = Some(known.unwrap_or_else(|| {
                    all.places.push(place);
                    all.places.len() - 1
                }));
            }
            Line::Pair(id) => all.pairs.extend(current.map(|place| (id, place))),
            Line::Removed(id) => {
                removed.insert(id);
            }
            Line::Damaged => {}
        })?;
        // From here on it is the set of those met: a pair that was tried again is there twice.
        all.pairs.retain(|(id, _)| removed.insert(*id));
        Ok(all)
    }

    /// Remembers exactly these.
    ///
    /// # Errors
    /// When they cannot be written; the file is as it was then.
    pub(super) fn replace(&mut self, uploaded: &Uploaded) -> Result<(), CacheError> {
        self.open = None;
        let unfinished = self.path.with_extension("part");
        let written = write_all(&unfinished, uploaded).and_then(|()| fs::rename(&unfinished, &self.path));
        written.map_err(|source| CacheError::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn compact(&mut self) -> Result<(), CacheError> {
        let mut uploaded = self.uploaded()?;
        let too_many = uploaded.pairs.len().saturating_sub(self.most);
        if too_many > 0 {
            uploaded.pairs.drain(..too_many);
            tracing::warn!(
                "{too_many} pairs in S3 were uploaded so long ago that clear_cache will not remove them: more than {} are not \
                 remembered",
                self.most
            );
        }
        self.replace(&uploaded)
    }

    fn opened(&mut self) -> Result<&mut Open, CacheError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.open_file()?,
        };
        Ok(self.open.insert(open))
    }

    fn open_file(&self) -> Result<Open, CacheError> {
        let (mut lines, mut place) = (0, None);
        self.each(|line| {
            lines += 1;
            if let Line::Place(named) = line {
                place = Some(named);
            }
        })?;
        let path = &self.path;
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = opened.map_err(|source| CacheError::Write {
            path: path.clone(),
            source,
        })?;
        if !ends_in_newline(path) {
            // Whatever the half line of a power cut was, the next one starts on its own; the place is said again.
            place = None;
            append(&file, path, "\n")?;
        }
        Ok(Open { file, lines, place })
    }

    fn append(&mut self, text: &str, lines: usize) -> Result<(), CacheError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Err(error) = append(&open.file, &self.path, text) {
            self.open = None;
            return Err(error);
        }
        open.lines += lines;
        Ok(())
    }

    fn each(&self, mut see: impl FnMut(Line)) -> Result<(), CacheError> {
        let failed = |source| CacheError::Read {
            path: self.path.clone(),
            source,
        };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(failed(source)),
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(());
            }
            let text = std::str::from_utf8(&line).ok().and_then(|text| text.strip_suffix('\n'));
            see(text.map_or(Line::Damaged, Line::read));
        }
    }
}

/// One `write`: a line is there or not, whatever happens to the process.
fn append(mut file: &File, path: &Path, text: &str) -> Result<(), CacheError> {
    file.write_all(text.as_bytes()).map_err(|source| CacheError::Write {
        path: path.to_owned(),
        source,
    })
}

fn ends_in_newline(path: &Path) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    let mut last = [b'\n'];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    // An empty file has no last byte.
    read.is_err() || last == [b'\n']
}

fn write_all(path: &Path, uploaded: &Uploaded) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut file = BufWriter::new(file);
    let mut current = None;
    for (id, number) in &uploaded.pairs {
        if current != Some(number) {
            let Some(place) = uploaded.places.get(*number) else {
                continue;
            };
            writeln!(file, "= {}/{}", place.bucket, place.prefix)?;
            current = Some(number);
        }
        writeln!(file, "{id}")?;
    }
    file.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(prefix: &str) -> S3Location {
        S3Location {
            bucket: "photos".to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    fn ids(count: usize) -> Vec<Uuid> {
        (0..count).map(|_| Uuid::new_v4()).collect()
    }

    fn index(directory: &tempfile::TempDir) -> Index {
        Index::new(directory.path().join("s3-index"))
    }

    #[test]
    fn what_was_recorded_is_found_by_the_next_process_without_what_was_forgotten() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(4));
        let mut first = index(&directory);
        first.record(&place("a_v1/"), ids[0]).unwrap();
        first.record(&place("a_v1/"), ids[1]).unwrap();
        drop(first);
        let mut second = index(&directory);
        second.record(&place("b c_v2/"), ids[2]).unwrap();
        second.record(&place("b c_v2/"), ids[2]).unwrap();
        second.forget(ids[1]).unwrap();

        let found = index(&directory);
        assert_eq!(
            found.uploaded().unwrap(),
            Uploaded {
                places: vec![place("a_v1/"), place("b c_v2/")],
                pairs: vec![(ids[0], 0), (ids[2], 1)]
            }
        );
        assert_eq!(found.find(ids[2]).unwrap(), Some(place("b c_v2/")));
        assert_eq!(found.find(ids[1]).unwrap(), None);
        assert_eq!(found.find(ids[3]).unwrap(), None);
    }

    #[test]
    fn the_half_line_of_a_power_cut_costs_that_line_only() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(3));
        let mut before = index(&directory);
        before.record(&place("a_v1/"), ids[0]).unwrap();
        before.record(&place("a_v1/"), ids[1]).unwrap();
        drop(before);
        let path = directory.path().join("s3-index");
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 5]).unwrap();

        let mut after = index(&directory);
        after.record(&place("a_v1/"), ids[2]).unwrap();
        let pairs = after.uploaded().unwrap().pairs;
        assert_eq!(pairs, [(ids[0], 0), (ids[2], 0)]);
    }

    #[test]
    fn the_file_is_written_anew_before_it_grows_without_end() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(1000));
        let mut index = Index {
            most: 40,
            ..index(&directory)
        };
        for id in &ids {
            index.record(&place("a_v1/"), *id).unwrap();
        }
        let lines = fs::read_to_string(directory.path().join("s3-index"))
            .unwrap()
            .lines()
            .count();
        assert!(lines <= 51, "{lines} lines");
        let pairs = index.uploaded().unwrap().pairs;
        assert!(pairs.len() >= 40);
        assert_eq!(pairs.last(), Some(&(ids[999], 0)));
    }

    #[test]
    fn only_the_service_user_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let mut index = index(&directory);
        index.record(&place("a_v1/"), Uuid::new_v4()).unwrap();
        let mode = |index: &Index| fs::metadata(&index.path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&index), 0o600);
        index.replace(&Uploaded::default()).unwrap();
        assert_eq!(mode(&index), 0o600);
        assert_eq!(index.uploaded().unwrap(), Uploaded::default());
    }
}
