//! The length of a program file according to its ELF header.
//!
//! Linkers put the section table last, so a truncated file ends before the end of that table (ELF specification, chapter 1).

/// Bytes of the longer of the two header formats.
pub(super) const HEADER: u64 = 64;

/// The minimum length in bytes: the file contains both tables of its header. `None`: the header itself is truncated.
pub(super) fn length(head: &[u8]) -> Option<u64> {
    let is_64_bit = *head.get(4)? == 2;
    let is_big_endian = *head.get(5)? == 2;
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = head.get(at..at + size)?.iter();
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if is_big_endian {
            bytes.fold(0, fold)
        } else {
            bytes.rev().fold(0, fold)
        })
    };
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

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_give_a_length_or_none(head in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = length(&head);
        }
    }
}
