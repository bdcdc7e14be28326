//! What `tests/fuzz` calls here.

use super::access_unit::AccessUnit;

/// Reads an H.264 access unit; whether a decoder can begin with it.
pub fn begins_sequence(data: &[u8]) -> bool {
    AccessUnit::read(data).begins_sequence()
}
