//! Memory use of this process.

/// Resident memory of this process in bytes; `None` if the system does not report it.
pub fn resident_bytes() -> Option<u64> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Parses `VmRSS` in the text of `/proc/<pid>/status`. `statm` is not used, because its unit is pages, whose size differs.
/// `kB` means 1024 bytes (proc(5)).
fn parse_status(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status_text() {
        let text = "Name:\tei-greengrass\nVmHWM:\t   9000 kB\nVmRSS:\t   5120 kB\nThreads:\t4\n";
        assert_eq!(parse_status(text), Some(5120 * 1024));
        for bad in [
            "",
            "VmRSS:\t kB\n",
            "VmRSS:\t12 MB\n",
            "VmRSS:\t18446744073709551615 kB\n",
        ] {
            assert_eq!(parse_status(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn this_process_uses_some_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
