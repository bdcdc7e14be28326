//! Splits the byte stream of a model into JSON objects.
//!
//! Models answer with compact JSON, a newline and a NUL byte. Accepted are objects with any white space and NUL bytes
//! between them. Braces inside strings do not count.

use std::io::{self, Read};
use std::ops::Range;

/// The largest accepted answer, in bytes.
pub const MAX_ANSWER: usize = 32 << 20;

/// Bytes per read.
const CHUNK: usize = 16 << 10;

/// A larger buffer is released after the answer that needed it.
const MAX_KEPT: usize = 1 << 20;

/// The stream is not a sequence of JSON objects of bounded size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Something other than an object.
    #[error("{0:?} instead of a JSON object")]
    NotAnObject(String),
    /// An object larger than the limit.
    #[error("an answer of more than {} MiB", .0 >> 20)]
    TooLarge(usize),
}

/// Collects bytes and returns complete objects.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// Received bytes in `buffer`.
    end: usize,
    /// Scanned bytes in `buffer`.
    scanned: usize,
    /// Start of the object that is being received.
    start: Option<usize>,
    /// The object returned last.
    last: Range<usize>,
    depth: u32,
    in_string: bool,
    escaped: bool,
    limit: usize,
}

impl Splitter {
    /// A splitter for objects of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            end: 0,
            scanned: 0,
            start: None,
            last: 0..0,
            depth: 0,
            in_string: false,
            escaped: false,
            limit,
        }
    }

    /// Reads once from `source`; returns the number of bytes, 0 at its end.
    ///
    /// # Errors
    /// Those of `source`, including `WouldBlock` and `Interrupted`.
    pub fn fill(&mut self, mut source: impl Read) -> io::Result<usize> {
        self.make_room();
        let read = source.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read)
    }

    /// Whether the buffer has more bytes than an answer may have.
    pub fn is_full(&self) -> bool {
        self.end > self.limit.saturating_add(CHUNK)
    }

    /// The next complete object, if there is one.
    ///
    /// # Errors
    /// [`FramingError`]; the stream cannot be used after it.
    pub fn next_object(&mut self) -> Result<Option<&[u8]>, FramingError> {
        while self.scanned < self.end {
            let at = self.scanned;
            let byte = self.buffer[at];
            let Some(start) = self.start else {
                match byte {
                    b'{' => self.start = Some(at),
                    b' ' | b'\t' | b'\r' | b'\n' | 0 => {
                        self.scanned += 1;
                        continue;
                    }
                    _ => return Err(FramingError::NotAnObject(excerpt(&self.buffer[at..self.end]))),
                }
                continue;
            };
            self.scanned += 1;
            if self.step(byte) {
                self.start = None;
                return if self.scanned - start > self.limit {
                    Err(FramingError::TooLarge(self.limit))
                } else {
                    self.last = start..self.scanned;
                    Ok(Some(self.last_object()))
                };
            }
        }
        match self.start {
            Some(start) if self.end - start > self.limit => Err(FramingError::TooLarge(self.limit)),
            _ => Ok(None),
        }
    }

    /// The object that [`next_object`](Self::next_object) returned last, until the next [`fill`](Self::fill).
    pub fn last_object(&self) -> &[u8] {
        &self.buffer[self.last.clone()]
    }

    /// Scans one byte inside an object; returns whether it completes the object.
    fn step(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => self.depth += 1,
            b'}' => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    /// Removes returned objects from the buffer and makes room for a read.
    fn make_room(&mut self) {
        self.last = 0..0;
        let keep_from = self.start.unwrap_or(self.scanned);
        if keep_from > 0 {
            self.buffer.copy_within(keep_from..self.end, 0);
            self.end -= keep_from;
            self.scanned -= keep_from;
            self.start = self.start.map(|_| 0);
        }
        if self.end == 0 && self.buffer.len() > MAX_KEPT {
            self.buffer.truncate(CHUNK);
            self.buffer.shrink_to_fit();
        }
        if self.buffer.len() - self.end < CHUNK / 2 {
            let wanted = (self.end + CHUNK).max(self.buffer.len() * 2);
            self.buffer.resize(wanted, 0);
        }
    }
}

/// The beginning of `bytes` as text for a message.
pub fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All objects of `bytes`, received in pieces that end at `cuts`.
    fn split(bytes: &[u8], cuts: &[usize], limit: usize) -> Result<Vec<Vec<u8>>, FramingError> {
        let mut splitter = Splitter::new(limit);
        let mut found = Vec::new();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut from = 0;
        for cut in cuts {
            let mut piece = &bytes[from..cut];
            while !piece.is_empty() {
                splitter.fill(&mut piece).unwrap();
                while let Some(object) = splitter.next_object()? {
                    found.push(object.to_vec());
                }
            }
            from = cut;
        }
        Ok(found)
    }

    #[test]
    fn text_before_an_object_is_quoted_in_the_error() {
        let error = split(b"\n\0Segmentation fault", &[], 100).unwrap_err();
        assert_eq!(error, FramingError::NotAnObject("Segmentation fault".into()));
    }

    #[test]
    fn an_object_larger_than_the_limit_is_refused_before_it_is_complete() {
        let endless = [b"{\"a\":\"".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(split(&endless, &[10, 90], 100), Err(FramingError::TooLarge(100)));
        assert_eq!(split(b"{\"a\":1}", &[], 7).unwrap().len(), 1);
        assert_eq!(split(b"{\"a\":1}", &[], 6), Err(FramingError::TooLarge(6)));
    }

    #[test]
    fn memory_of_a_large_answer_is_released() {
        let large = [b"{\"a\":\"".as_slice(), &vec![b'x'; 4 * MAX_KEPT], b"\"}\n\0{}"].concat();
        let mut splitter = Splitter::new(MAX_ANSWER);
        let mut rest = large.as_slice();
        let mut objects = 0;
        while !rest.is_empty() {
            splitter.fill(&mut rest).unwrap();
            while splitter.next_object().unwrap().is_some() {
                objects += 1;
            }
        }
        assert_eq!(objects, 2);
        splitter.fill(&b"{}"[..]).unwrap();
        assert!(splitter.buffer.capacity() <= MAX_KEPT, "{}", splitter.buffer.capacity());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let text = "[{}\\[\\]\"\\\\a-zé\\n ]{0,12}";
        let leaf = prop_oneof![
            any::<i32>().prop_map(serde_json::Value::from),
            text.prop_map(serde_json::Value::from)
        ];
        leaf.prop_recursive(3, 12, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::hash_map(text, inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn objects_do_not_depend_on_how_the_stream_is_cut(
            values in prop::collection::vec(json(), 1..5),
            gaps in prop::collection::vec("[ \\t\\r\\n\\x00]{0,4}", 6),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut stream = gaps[5].clone().into_bytes();
            let mut sent = Vec::new();
            for (value, gap) in values.iter().zip(&gaps) {
                let object = serde_json::to_vec(&serde_json::json!({ "v": value })).unwrap();
                stream.extend_from_slice(&object);
                stream.extend_from_slice(gap.as_bytes());
                sent.push(object);
            }
            prop_assert_eq!(split(&stream, &cuts, MAX_ANSWER).unwrap(), sent);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
            let _ = split(&bytes, &cuts, 128);
            let braces: Vec<u8> = bytes.iter().map(|byte| b"{}\"\\ \0a["[*byte as usize % 8]).collect();
            let _ = split(&braces, &cuts, 128);
        }
    }
}
