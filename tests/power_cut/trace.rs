//! Reads what `recorder.c` has written.

use std::ops::Range;
use std::path::Path;

/// Numbers in the header of a record: operation, time, inode, two arguments, and the lengths of two paths and of the data.
const HEADER: usize = 8;

/// What the program did to a file or directory. Paths are relative to the recorded directory; it is itself the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Create {
        inode: u64,
        mode: u32,
        path: String,
    },
    /// The data is the part of the trace at this range.
    Write {
        inode: u64,
        offset: u64,
        data: Range<usize>,
    },
    SetLength {
        inode: u64,
        length: u64,
    },
    SyncFile {
        inode: u64,
    },
    SyncDirectory {
        path: String,
    },
    SyncAll,
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    Symlink {
        path: String,
        target: String,
    },
    Remove {
        path: String,
    },
    MakeDirectory {
        path: String,
        mode: u32,
    },
    SetMode {
        inode: u64,
        path: String,
        mode: u32,
    },
}

impl Operation {
    /// Whether it makes earlier operations durable.
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::SyncFile { .. } | Self::SyncDirectory { .. } | Self::SyncAll)
    }
}

/// An operation and how many bytes the trace had before it.
#[derive(Debug, Clone)]
pub struct Step {
    pub operation: Operation,
    pub begin: u64,
}

/// The operations in their order.
pub struct Trace {
    pub steps: Vec<Step>,
    bytes: Vec<u8>,
}

impl Trace {
    /// Reads the trace of `root`.
    pub fn read(file: &Path, root: &Path) -> Self {
        let bytes = std::fs::read(file).expect("a trace");
        let root = root.to_str().expect("a path of the test");
        let (mut steps, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (operation, end) = parse(&bytes, at, root);
            steps.push(Step {
                operation,
                begin: at as u64,
            });
            at = end;
        }
        Self { steps, bytes }
    }

    /// Bytes of the trace before this step.
    pub fn position(&self, step: usize) -> u64 {
        self.steps.get(step).map_or(self.bytes.len() as u64, |step| step.begin)
    }

    /// The content of a write.
    pub fn data(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }
}

fn parse(bytes: &[u8], at: usize, root: &str) -> (Operation, usize) {
    let number = |index: usize| {
        let begin = at + index * 8;
        u64::from_le_bytes(bytes[begin..begin + 8].try_into().expect("eight bytes"))
    };
    let (inode, a, b) = (number(2), number(3), number(4));
    let begin = at + HEADER * 8;
    let middle = begin + number(5) as usize;
    let data = middle + number(6) as usize;
    let end = data + number(7) as usize;
    let text = |range: Range<usize>| String::from_utf8_lossy(&bytes[range]).into_owned();
    let (first, second) = (text(begin..middle), text(middle..data));
    let below = |path: &str| relative(path, root);
    let operation = match number(0) {
        1 => Operation::Create {
            inode,
            mode: b as u32,
            path: below(&first),
        },
        2 => Operation::Write {
            inode,
            offset: a,
            data: data..end,
        },
        3 => Operation::SetLength { inode, length: a },
        4 => Operation::SyncFile { inode },
        5 => Operation::SyncDirectory { path: below(&first) },
        6 => Operation::SyncAll,
        7 => Operation::Rename {
            from: below(&first),
            to: below(&second),
        },
        8 => Operation::Link {
            from: below(&first),
            to: below(&second),
        },
        9 => Operation::Symlink {
            path: below(&first),
            target: second,
        },
        10 => Operation::Remove { path: below(&first) },
        11 => Operation::MakeDirectory {
            path: below(&first),
            mode: a as u32,
        },
        12 => Operation::SetMode {
            inode,
            path: if first.is_empty() { first } else { below(&first) },
            mode: a as u32,
        },
        other => panic!("operation {other} of {first} ({second}) cannot be replayed: teach the harness"),
    };
    (operation, end)
}

fn relative(path: &str, root: &str) -> String {
    let below = path.strip_prefix(root);
    let below = below.unwrap_or_else(|| panic!("{path} crosses the border of {root}: teach the harness"));
    let parts = below.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/")
}
