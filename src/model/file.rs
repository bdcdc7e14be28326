//! Checks a model file before it is started, so that the log says what is wrong with it instead of "Exec format error".

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::elf;

/// Why a file cannot be used as a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// Missing, or not readable.
    #[error("the model file {} cannot be read: {source}; check ei_local_model_file (or --model)", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not a program.
    #[error("{} is {what}, not a model: build one in Edge Impulse Studio (Deployment, Linux for {}) and use the .eim file", path.display(), this_machine())]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// Truncated.
    #[error("{} is not complete: it has {got} bytes of at least {needed}", path.display())]
    Incomplete {
        /// The path.
        path: PathBuf,
        /// Its size in bytes.
        got: u64,
        /// The size in bytes according to its header.
        needed: u64,
    },
    /// For another architecture.
    #[error("the model {} is built for {built_for}, this machine is {}: build it again in Edge Impulse Studio (Deployment, Linux for {})", path.display(), this_machine(), this_machine())]
    Architecture {
        /// The path.
        path: PathBuf,
        /// The architecture of the file.
        built_for: String,
    },
    /// The program that runs it is not installed: the loader of its C library, or the interpreter of a script.
    #[error("{} needs {interpreter}, which is not on this machine{}", path.display(), loader_advice(interpreter))]
    Interpreter {
        /// The path.
        path: PathBuf,
        /// The program that is missing.
        interpreter: String,
    },
    /// Neither the file nor a copy of it can be executed.
    #[error("the model {} is not executable, and no executable copy could be made in {}: {source}", path.display(), work_dir.display())]
    NotExecutable {
        /// The path.
        path: PathBuf,
        /// The directory for the copy.
        work_dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What a model path refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelTarget {
    /// A program to start: the file itself, or an executable copy.
    Program(PathBuf),
    /// The socket of a model that is already running.
    Socket(PathBuf),
}

/// Checks the file without changing anything.
///
/// # Errors
/// [`ModelFileError`]
pub fn examine(path: &Path) -> Result<ModelTarget, ModelFileError> {
    let unreadable = |source| ModelFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let not_a_model = |what: &str| ModelFileError::NotAModel {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let meta = fs::metadata(path).map_err(unreadable)?;
    let kind = meta.file_type();
    if kind.is_socket() {
        return Ok(ModelTarget::Socket(path.to_owned()));
    }
    if kind.is_dir() {
        return Err(not_a_model("a directory"));
    }
    if !kind.is_file() {
        return Err(not_a_model("neither a file nor a socket"));
    }
    let (mut file, head) = read_head(path).map_err(unreadable)?;
    match identify(&head) {
        FileFormat::Program { machine } if runs_here(machine) => {
            check_length(path, &head, meta.len())?;
            check_interpreter(path, elf_interpreter(&mut file, &head))?;
            Ok(ModelTarget::Program(path.to_owned()))
        }
        FileFormat::Program { machine } => Err(ModelFileError::Architecture {
            path: path.to_owned(),
            built_for: machine_name(machine),
        }),
        // A script starts a model with the socket as its argument.
        FileFormat::Script if is_executable(path) => {
            check_interpreter(path, script_interpreter(&head))?;
            Ok(ModelTarget::Program(path.to_owned()))
        }
        FileFormat::Script => Err(not_a_model(
            "a script that is not executable (chmod +x makes it a model)",
        )),
        FileFormat::Other(what) => Err(not_a_model(what)),
    }
}

/// What kind of program a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProgramKind {
    /// Of the same instruction set as this program.
    Native {
        /// What loads its libraries; `None`: it has none.
        loader: Option<String>,
    },
    /// Of another one that the kernel runs as well.
    Foreign {
        /// What loads its libraries; `None`: it has none.
        loader: Option<String>,
    },
    /// A script.
    Script,
}

impl ProgramKind {
    /// Whether it is of the same instruction set as this program.
    pub(super) fn is_native(&self) -> bool {
        matches!(self, Self::Native { .. })
    }
}

/// The kind of a program that [`examine`] has accepted.
///
/// # Errors
/// It cannot be read.
pub(super) fn kind(path: &Path) -> io::Result<ProgramKind> {
    let (mut file, head) = read_head(path)?;
    let loader = elf_interpreter(&mut file, &head);
    Ok(match identify(&head) {
        FileFormat::Program { machine } if machine_name(machine) == this_machine() => ProgramKind::Native { loader },
        FileFormat::Program { .. } => ProgramKind::Foreign { loader },
        FileFormat::Script | FileFormat::Other(_) => ProgramKind::Script,
    })
}

/// Opens a file and reads what tells its format.
fn read_head(path: &Path) -> io::Result<(File, Vec<u8>)> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(512).read_to_end(&mut head)?;
    Ok((file, head))
}

/// Refuses a file that is shorter than its header says. It would end with SIGSEGV or SIGBUS.
fn check_length(path: &Path, head: &[u8], got: u64) -> Result<(), ModelFileError> {
    match elf::length(head) {
        Some(needed) if needed <= got => Ok(()),
        needed => Err(ModelFileError::Incomplete {
            path: path.to_owned(),
            got,
            needed: needed.unwrap_or(elf::HEADER),
        }),
    }
}

/// Without this check, the error of the system says that the model itself does not exist.
fn check_interpreter(path: &Path, interpreter: Option<String>) -> Result<(), ModelFileError> {
    match interpreter {
        Some(interpreter) if !Path::new(&interpreter).exists() => Err(ModelFileError::Interpreter {
            path: path.to_owned(),
            interpreter,
        }),
        _ => Ok(()),
    }
}

/// The loader that a program names (`PT_INTERP`); `None` for a static program.
fn elf_interpreter(file: &mut File, head: &[u8]) -> Option<String> {
    let mut read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    elf::interpreter(head, &mut read)
}

fn script_interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

fn loader_advice(interpreter: &str) -> &'static str {
    if Path::new(interpreter)
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"ld"))
    {
        ": install the C library of that architecture, or build the model for this machine"
    } else {
        ": install it"
    }
}

/// Whether this process can execute the file.
pub(super) fn is_executable(path: &Path) -> bool {
    access(path, Access::EXEC_OK).is_ok()
}

enum FileFormat {
    Program {
        machine: u16,
    },
    /// A file that begins with `#!`.
    Script,
    /// Described for the error message.
    Other(&'static str),
}

fn identify(head: &[u8]) -> FileFormat {
    if let [0x7f, b'E', b'L', b'F', _, order, ..] = head {
        return match (head.get(18..20), order) {
            (Some(&[low, high]), 1) => FileFormat::Program {
                machine: u16::from_le_bytes([low, high]),
            },
            (Some(&[high, low]), 2) => FileFormat::Program {
                machine: u16::from_be_bytes([high, low]),
            },
            _ => FileFormat::Other("a truncated program file"),
        };
    }
    if head.starts_with(b"#!") {
        return FileFormat::Script;
    }
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    FileFormat::Other(match head {
        [] => "an empty file",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive (unpack it first)",
        [0x1f, 0x8b, ..] => "a gzip archive (unpack it first)",
        [b'M', b'Z', ..] => "a Windows program",
        [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => "a macOS program",
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => "a bare TensorFlow Lite file",
        _ if text.starts_with("<!doctype") || text.starts_with("<html") => "a web page (an error page, or a login?)",
        _ if text.starts_with("<?xml") => "an XML document (an error of the download?)",
        _ if text.starts_with('{') => "a JSON document (an error of the download?)",
        _ if !head.contains(&0) && std::str::from_utf8(head).is_ok() => "a text file",
        _ => "a file of an unknown kind",
    })
}

/// Machine numbers of the ELF specification.
fn machine_name(machine: u16) -> String {
    match machine {
        3 => "x86 (32 bit)".into(),
        40 => "ARM (32 bit)".into(),
        62 => "x86-64".into(),
        183 => "aarch64".into(),
        243 => "RISC-V".into(),
        other => format!("ELF machine {other}"),
    }
}

/// Programs of this architecture, and the 32-bit ones that its kernel usually runs as well.
fn runs_here(machine: u16) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => matches!(machine, 62 | 3),
        "aarch64" => matches!(machine, 183 | 40),
        "x86" => machine == 3,
        "arm" => machine == 40,
        "riscv64" => machine == 243,
        _ => true,
    }
}

/// This machine in the names of [`machine_name`].
fn this_machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x86-64",
        "arm" => "ARM (32 bit)",
        "x86" => "x86 (32 bit)",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn message(name: &str, content: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        examine(&path).unwrap_err().to_string()
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(18, 0);
        head.extend_from_slice(&machine.to_le_bytes());
        head.resize(64, 0);
        head
    }

    #[test]
    fn the_message_says_what_the_file_is() {
        for (content, expected) in [
            (&b""[..], "an empty file"),
            (b"\n<!DOCTYPE html><html>", "a web page"),
            (b"#!/bin/sh\necho hi", "a script"),
            (b"PK\x03\x04....", "a ZIP archive"),
            (b"{\"error\":1}", "a JSON document"),
            (b"hello", "a text file"),
            (b"\x7fELF\x02\x01", "a truncated program file"),
            (b"\x00\x01\x02", "a file of an unknown kind"),
        ] {
            let message = message("model.eim", content);
            assert!(message.contains(expected), "{message}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(examine(dir.path()).unwrap_err().to_string().contains("a directory"));
        let missing = examine(&dir.path().join("nothing.eim")).unwrap_err().to_string();
        assert!(
            missing.contains("nothing.eim") && missing.contains("No such file"),
            "{missing}"
        );
    }

    #[test]
    fn an_executable_script_is_a_model() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.sh");
        fs::write(&path, "#!/bin/sh\nexec ./model.eim \"$1\"\n").unwrap();
        assert!(examine(&path).unwrap_err().to_string().contains("not executable"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(examine(&path).unwrap(), ModelTarget::Program(path));
    }

    #[test]
    fn the_message_names_both_architectures() {
        let message = message("model.eim", &elf(8));
        assert!(
            message.contains("is built for ELF machine 8, this machine is"),
            "{message}"
        );
        assert_eq!(machine_name(183), "aarch64");
    }

    #[test]
    fn a_truncated_program_is_not_complete() {
        let program = fs::read("/proc/self/exe").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.eim");
        fs::write(&path, &program).unwrap();
        examine(&path).unwrap();
        for length in [program.len() - 1, program.len() / 2, 64, 30] {
            fs::write(&path, &program[..length]).unwrap();
            let message = examine(&path).unwrap_err().to_string();
            assert!(message.contains("is not complete"), "{length}: {message}");
        }
    }

    #[test]
    fn a_script_without_its_interpreter_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.sh");
        fs::write(&path, "#!/opt/no-such-shell -e\nexec true\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let message = examine(&path).unwrap_err().to_string();
        assert!(
            message.contains("needs /opt/no-such-shell, which is not on this machine: install it"),
            "{message}"
        );
    }

    #[test]
    fn a_program_without_its_loader_is_recognised() {
        let mut program = fs::read("/proc/self/exe").unwrap();
        let loader = b"/ld-linux";
        let at = program.windows(loader.len()).position(|part| part == loader).unwrap();
        program[at + 1..at + 3].copy_from_slice(b"lx");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.eim");
        fs::write(&path, program).unwrap();
        let message = examine(&path).unwrap_err().to_string();
        assert!(
            message.contains("/lx-linux") && message.contains("is not on this machine"),
            "{message}"
        );
    }

    #[test]
    fn a_socket_is_not_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(examine(&path).unwrap(), ModelTarget::Socket(path));
    }
}
