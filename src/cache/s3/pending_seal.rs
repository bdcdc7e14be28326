//! Checksums of a pair that waits for S3, in a last line of its message: `#checksums <message> <picture, or ->`.
//!
//! Pairs are not synced to the disk one by one, because that wears out SD cards. A power cut can therefore leave a file that has its
//! name and its length, but not all of its content, or a message without its picture.

use bytes::Bytes;

const MARK: &[u8] = b"\n#checksums ";
/// Eight digits of each checksum, one space, one line end.
const MAX_LINE: usize = MARK.len() + 18;

/// The message with its last line.
pub(super) fn seal(message: &[u8], picture: Option<&[u8]>) -> Vec<u8> {
    let picture = picture.map_or("-".to_owned(), |picture| format!("{:08x}", crc32fast::hash(picture)));
    let line = format!("{:08x} {picture}\n", crc32fast::hash(message));
    [message, MARK, line.as_bytes()].concat()
}

/// The message without its last line, if it is whole and `picture` is the one that belongs to it. Files of earlier versions have no such
/// line: they are returned as they are.
pub(super) fn open(file: &Bytes, picture: Option<&[u8]>) -> Option<Bytes> {
    let tail = file.len().saturating_sub(MAX_LINE);
    let at = file.get(tail..)?.windows(MARK.len()).rposition(|bytes| bytes == MARK);
    let Some(at) = at else {
        return Some(file.clone());
    };
    let message = file.slice(..tail + at);
    (seal(&message, picture) == *file).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_pair_is_opened() {
        for picture in [None, Some(&b"picture"[..])] {
            let message = Bytes::from_static(br#"{"s3_prefix":"a/"}"#);
            let sealed = Bytes::from(seal(&message, picture));
            assert_eq!(open(&sealed, picture), Some(message));
            assert_eq!(open(&sealed, Some(b"another")), None);
            let mut damaged = sealed.to_vec();
            damaged[3] = 0;
            assert_eq!(open(&damaged.into(), picture), None);
        }
        assert_eq!(open(&seal(b"{}", Some(b"lost")).into(), None), None);
        let earlier = Bytes::from_static(b"{}");
        assert_eq!(open(&earlier, None), Some(earlier));
    }
}
