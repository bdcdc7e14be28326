//! Memory that was freed.

/// Gives freed memory back to the kernel. The allocator of the GNU C library otherwise does so only at the end of its first heap, so
/// that one block in use keeps everything before it. With another C library nothing happens.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the argument is a number of bytes to keep, and the allocator locks its heaps itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("readable");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.expect("a size").parse().expect("a number")
    }

    #[test]
    fn what_was_freed_between_blocks_in_use_is_given_back() {
        let mut blocks: Vec<_> = (0..32 * 1024).map(|_| Some(vec![1_u8; 1024])).collect();
        for (number, block) in blocks.iter_mut().enumerate() {
            if number % 64 != 0 {
                *block = None;
            }
        }
        let before = resident_kib();
        release_free_memory();
        let after = resident_kib();
        assert!(before > after + 16 * 1024, "{before} and {after} KiB, of 32 MiB");
        assert_eq!(blocks.iter().flatten().count(), 512);
    }
}
