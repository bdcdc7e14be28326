//! The format of a file of records. Each record is a header of 40 bytes, the JSON, and the picture or sound:
//!
//! | bytes | contents (numbers are little-endian) |
//! | --- | --- |
//! | 0..4 | `EIR1` |
//! | 4..12, 12..20 | index, timestamp in milliseconds |
//! | 20..24, 24..28 | length of the JSON, of the picture or sound |
//! | 28..32 | 0: JPEG, 1: WAV |
//! | 32..36, 36..40 | CRC-32 of what follows the header, of bytes 0 to 36 |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::studio::monitor::record::{MAX_INDEX, RawData, RawDataKind, Record};

const MAGIC: [u8; 4] = *b"EIR1";
const HEADER: usize = 40;
/// Bytes read at once in the search for the next header.
const SEARCH: usize = 64 << 10;

/// Where a record is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) timestamp_ms: u64,
    offset: u64,
    json_len: u32,
    data_len: u32,
    kind: RawDataKind,
    checksum: u32,
}

impl Entry {
    /// The same record at another place.
    pub(super) fn moved_to(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// Where the record ends.
    pub(super) fn end(&self) -> u64 {
        self.offset + HEADER as u64 + u64::from(self.json_len) + u64::from(self.data_len)
    }
}

/// The records of one file.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// In increasing order of their indices.
    pub(super) entries: Vec<Entry>,
    /// Bytes between and after the records that are no record.
    pub(super) unreadable: u64,
}

/// Writes a record as bytes into `buffer`. Returns its place in an empty file. `None`: JSON or data are longer than 4 GiB.
pub(super) fn encode(record: &Record, buffer: &mut Vec<u8>) -> Option<Entry> {
    buffer.clear();
    buffer.extend_from_slice(&[0; HEADER]);
    serde_json::to_writer(&mut *buffer, &record.record).ok()?;
    let json_len = buffer.len() - HEADER;
    let data = &record.raw_data;
    buffer.extend_from_slice(&data.bytes);
    let (header, content) = buffer.split_first_chunk_mut::<HEADER>()?;
    let entry = Entry {
        index: record.index,
        timestamp_ms: record.timestamp_ms,
        offset: 0,
        json_len: json_len.try_into().ok()?,
        data_len: data.bytes.len().try_into().ok()?,
        kind: data.kind,
        checksum: crc32fast::hash(content),
    };
    *header = write_header(&entry);
    Some(entry)
}

fn write_header(entry: &Entry) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let fields = [
        &MAGIC[..],
        &entry.index.to_le_bytes(),
        &entry.timestamp_ms.to_le_bytes(),
        &entry.json_len.to_le_bytes(),
        &entry.data_len.to_le_bytes(),
        &kind_code(entry.kind).to_le_bytes(),
        &entry.checksum.to_le_bytes(),
    ];
    let mut fields = fields.concat();
    fields.extend_from_slice(&crc32fast::hash(&fields).to_le_bytes());
    header.copy_from_slice(&fields);
    header
}

fn kind_code(kind: RawDataKind) -> u32 {
    match kind {
        RawDataKind::Jpg => 0,
        RawDataKind::Wav => 1,
    }
}

/// Finds the records of a file by their headers, without reading the pictures.
///
/// # Errors
/// The file cannot be read.
pub(super) fn scan(file: &File) -> io::Result<Scan> {
    let len = file.metadata()?.len();
    let mut found = Scan::default();
    let mut offset = 0;
    while let Some(entry) = next_entry(file, offset, len)? {
        found.unreadable += entry.offset - offset;
        offset = entry.end();
        // Each record has a higher index than the one before; anything else is an old block of the disk.
        if found.entries.last().is_none_or(|last| last.index < entry.index) {
            found.entries.push(entry);
        } else {
            found.unreadable += entry.end() - entry.offset;
        }
    }
    found.unreadable += len - offset;
    Ok(found)
}

/// The first record of a file, if its header is whole.
///
/// # Errors
/// The file cannot be read.
pub(super) fn first_entry(file: &File) -> io::Result<Option<Entry>> {
    entry_at(file, 0, file.metadata()?.len())
}

/// The first whole record at or after `offset`.
fn next_entry(file: &File, mut offset: u64, len: u64) -> io::Result<Option<Entry>> {
    if let Some(entry) = entry_at(file, offset, len)? {
        return Ok(Some(entry));
    }
    let mut chunk = vec![0; SEARCH];
    while offset + (HEADER as u64) < len {
        let read = file.read_at(&mut chunk, offset)?;
        let candidates = chunk.get(..read).unwrap_or_default().windows(MAGIC.len());
        for (at, _) in candidates.enumerate().filter(|(_, bytes)| *bytes == MAGIC) {
            if let Some(entry) = entry_at(file, offset + at as u64, len)? {
                return Ok(Some(entry));
            }
        }
        if read < MAGIC.len() {
            break;
        }
        // The mark may begin in the last three bytes of this chunk.
        offset += (read - (MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

/// The record whose header is at `offset`. `None`: there is none, or the file ends within it.
fn entry_at(file: &File, offset: u64, len: u64) -> io::Result<Option<Entry>> {
    if len.saturating_sub(offset) < HEADER as u64 {
        return Ok(None);
    }
    let mut header = [0; HEADER];
    match file.read_exact_at(&mut header, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    Ok(parse_header(&header, offset).filter(|entry| entry.end() <= len))
}

fn parse_header(header: &[u8; HEADER], offset: u64) -> Option<Entry> {
    let (checked, checksum) = header.split_last_chunk::<4>()?;
    if !checked.starts_with(&MAGIC) || crc32fast::hash(checked) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let u32_at = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*header.get(at..)?.first_chunk()?));
    Some(Entry {
        index: u64_at(4).filter(|index| *index <= MAX_INDEX)?,
        timestamp_ms: u64_at(12)?,
        offset,
        json_len: u32_at(20)?,
        data_len: u32_at(24)?,
        kind: match u32_at(28)? {
            0 => RawDataKind::Jpg,
            1 => RawDataKind::Wav,
            _ => return None,
        },
        checksum: u32_at(32)?,
    })
}

/// Reads a record. `None`: its content is damaged.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read(file: &File, entry: &Entry) -> io::Result<Option<Record>> {
    // The lengths are those of a header whose checksum is right, and the record lies within the file.
    let mut content = vec![0; entry.json_len as usize + entry.data_len as usize];
    match file.read_exact_at(&mut content, entry.offset + HEADER as u64) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if crc32fast::hash(&content) != entry.checksum {
        return Ok(None);
    }
    let mut json = Bytes::from(content);
    let bytes = json.split_off(entry.json_len as usize);
    let record = serde_json::from_slice(&json).ok();
    Ok(record.map(|record| Record {
        index: entry.index,
        timestamp_ms: entry.timestamp_ms,
        record,
        raw_data: RawData {
            kind: entry.kind,
            bytes,
        },
    }))
}
