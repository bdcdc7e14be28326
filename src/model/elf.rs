//! The length of a program file according to its ELF header.
//!
//! Linkers put the section table last, so a truncated file ends before the end of that table (ELF specification,
//! chapter 1).

/// Bytes of the longer of the two header formats.
pub(super) const HEADER: u64 = 64;

/// A header with accessors for its fields.
struct Fields<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

impl Fields<'_> {
    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?.iter();
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.is_big_endian {
            bytes.fold(0, fold)
        } else {
            bytes.rev().fold(0, fold)
        })
    }
}

/// The path of the loader (`PT_INTERP`). `None`: the program is static, or a part of the file cannot be read. `read`
/// reads bytes of the file: offset, length.
pub(super) fn interpreter(head: &[u8], read: &mut dyn FnMut(u64, usize) -> Option<Vec<u8>>) -> Option<String> {
    /// Type of the program header that locates the path.
    const PT_INTERP: u64 = 3;
    /// `PATH_MAX` of Linux.
    const MAX_PATH: usize = 4096;
    /// The table of a program has about 1000 bytes; the fields of the header allow 4 GiB.
    const MAX_TABLE: u64 = 64 << 10;
    let is_64_bit = *head.get(4)? == 2;
    let is_big_endian = *head.get(5)? == 2;
    let header = Fields {
        bytes: head,
        is_big_endian,
    };
    let (table, size, count) = if is_64_bit {
        (header.number(32, 8)?, header.number(54, 2)?, header.number(56, 2)?)
    } else {
        (header.number(28, 4)?, header.number(42, 2)?, header.number(44, 2)?)
    };
    let table_bytes = Some(size * count).filter(|bytes| *bytes <= MAX_TABLE)?;
    let entries = read(table, usize::try_from(table_bytes).ok()?)?;
    for entry in entries.chunks_exact(usize::try_from(size).ok().filter(|size| *size > 0)?) {
        let entry = Fields {
            bytes: entry,
            is_big_endian,
        };
        if entry.number(0, 4)? == PT_INTERP {
            let (offset, length) = if is_64_bit {
                (entry.number(8, 8)?, entry.number(32, 8)?)
            } else {
                (entry.number(4, 4)?, entry.number(16, 4)?)
            };
            let length = usize::try_from(length).ok().filter(|length| *length <= MAX_PATH)?;
            let path = read(offset, length)?;
            let text = path.split(|byte| *byte == 0).next()?;
            return String::from_utf8(text.to_vec()).ok();
        }
    }
    None
}

/// The minimum length in bytes: the file contains both tables of its header. `None`: the header itself is truncated.
pub(super) fn length(head: &[u8]) -> Option<u64> {
    let is_64_bit = *head.get(4)? == 2;
    let header = Fields {
        bytes: head,
        is_big_endian: *head.get(5)? == 2,
    };
    let number = |at, size| header.number(at, size);
    let (programs, sections, counts) = if is_64_bit {
        (number(32, 8)?, number(40, 8)?, 54)
    } else {
        (number(28, 4)?, number(32, 4)?, 42)
    };
    let end = |start: u64, counts: usize| -> Option<u64> {
        Some(start.saturating_add(number(counts, 2)? * number(counts + 2, 2)?))
    };
    Some(end(programs, counts)?.max(end(sections, counts + 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_the_end_of_the_last_table_in_every_class_and_byte_order() {
        let mut long = vec![0; 64];
        long[..6].copy_from_slice(b"\x7fELF\x02\x01");
        long[32] = 64;
        long[41] = 0x10;
        long[58..62].copy_from_slice(&[64, 0, 3, 0]);
        assert_eq!(length(&long), Some(0x1000 + 3 * 64));
        let mut short = vec![0; 52];
        short[..6].copy_from_slice(b"\x7fELF\x01\x02");
        short[35] = 0x20;
        short[46..50].copy_from_slice(&[0, 40, 0, 2]);
        assert_eq!(length(&short), Some(0x20 + 2 * 40));
    }

    #[test]
    fn a_table_is_not_read_that_no_program_has() {
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[54..58].fill(0xff);
        let mut most = 0;
        let found = interpreter(&head, &mut |_, length| {
            most = most.max(length);
            None
        });
        assert_eq!((found, most), (None, 0));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_give_a_length_or_none(head in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = length(&head);
        }
    }
}
