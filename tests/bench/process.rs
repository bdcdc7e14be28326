//! What the kernel says about a process.

/// Use of one process, its children excluded.
pub struct Usage {
    /// User and system time since its start.
    pub cpu_seconds: f64,
    /// Proportional share of memory.
    pub pss_mib: f64,
    /// Largest resident set so far.
    pub peak_rss_mib: f64,
}

impl Usage {
    /// Reads `/proc/<pid>`.
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stat = read("stat");
        // The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
        Self {
            cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            pss_mib: kib(&read("smaps_rollup"), "Pss:") / 1024.0,
            peak_rss_mib: kib(&read("status"), "VmHWM:") / 1024.0,
        }
    }
}

fn kib(text: &str, key: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}
