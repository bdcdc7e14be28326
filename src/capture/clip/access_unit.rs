//! What stands before the picture in an access unit of H.264 with start codes.
//!
//! The units and their types: H.264 (ITU-T), 7.4.1 and annex B.

/// Types of units.
const SLICES: std::ops::RangeInclusive<u8> = 1..=5;
const IDR: u8 = 5;
const SEQUENCE: u8 = 7;
const PICTURE: u8 = 8;
const SEQUENCE_EXTENSION: u8 = 13;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// The begin of an access unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct AccessUnit {
    /// The parameters of sequence (SPS) and pictures (PPS) that it contains, with start codes; empty without an SPS.
    pub parameters: Vec<u8>,
    /// Its picture needs no earlier one.
    pub is_idr: bool,
}

impl AccessUnit {
    /// Reads up to the picture. Data without start codes has nothing.
    pub(super) fn read(data: &[u8]) -> Self {
        let mut found = Self::default();
        let (mut rest, mut has_sequence) = (data, false);
        while let Some(begin) = next_start(rest) {
            let unit = &rest[begin..];
            let Some(kind) = unit.first().map(|byte| byte & 0x1f) else {
                break;
            };
            if SLICES.contains(&kind) {
                found.is_idr = kind == IDR;
                break;
            }
            if matches!(kind, SEQUENCE | PICTURE | SEQUENCE_EXTENSION) {
                has_sequence |= kind == SEQUENCE;
                found.parameters.extend(START_CODE);
                found.parameters.extend(unit_of(unit));
            }
            rest = unit;
        }
        if !has_sequence {
            found.parameters.clear();
        }
        found
    }

    /// Whether a decoder can begin with it if it has `parameters`.
    pub(super) fn begins_sequence(&self) -> bool {
        !self.parameters.is_empty()
    }
}

/// Where the next unit begins, after its start code.
fn next_start(data: &[u8]) -> Option<usize> {
    data.windows(3).position(|bytes| bytes == [0, 0, 1]).map(|at| at + 3)
}

/// The unit without the next start code, whose zeros do not belong to it.
fn unit_of(data: &[u8]) -> &[u8] {
    let end = next_start(data).map_or(data.len(), |next| next - 3);
    let unit = &data[..end];
    let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
    &unit[..unit.len() - zeros]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(kinds: &[u8]) -> Vec<u8> {
        let unit = |kind: &u8| [0, 0, 0, 1, 0x60 | kind, 0xaa, 0xbb];
        kinds.iter().flat_map(unit).collect()
    }

    #[test]
    fn a_decoder_can_begin_where_the_parameters_of_the_sequence_are() {
        for (kinds, begins, is_idr) in [
            (&[9, 7, 8, 5][..], true, true),
            (&[9, 6, 7, 8, 1], true, false),
            (&[5], false, true),
            (&[9, 8, 5], false, true),
            (&[9, 1], false, false),
            (&[1, 7], false, false),
            (&[], false, false),
        ] {
            let unit = AccessUnit::read(&units(kinds));
            assert_eq!((unit.begins_sequence(), unit.is_idr), (begins, is_idr), "{kinds:?}");
        }
    }

    #[test]
    fn the_parameters_are_complete_and_nothing_else() {
        let unit = AccessUnit::read(&units(&[9, 7, 6, 8, 8, 5, 7]));
        assert_eq!(unit.parameters, units(&[7, 8, 8]));
        // Short start codes and filling zeros.
        let unit = AccessUnit::read(&[0, 0, 1, 0x67, 1, 2, 0, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 9]);
        assert_eq!(unit.parameters, [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(data in proptest::collection::vec(prop_oneof![0_u8..2, any::<u8>()], 0..200)) {
            let unit = AccessUnit::read(&data);
            prop_assert!(unit.parameters.len() <= 2 * data.len());
        }
    }
}
