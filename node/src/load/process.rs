//! What the server under test costs, read from /proc: CPU time and resident memory of the processes named by `--server-pid`. It
//! never talks to the server, so that measuring costs it nothing.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// The unit of the CPU times in /proc/PID/stat. Linux fixes it for programs at a hundredth of a second on every machine we run on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time (user and system, all threads) that this process has used.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    cpu_of("self")
}

/// CPU time of all these processes together.
pub(crate) fn cpu(pids: &[u32]) -> anyhow::Result<Duration> {
    pids.iter().map(|pid| cpu_of(&pid.to_string())).sum()
}

/// Resident memory of all these processes together.
pub(crate) fn rss_kib(pids: &[u32]) -> anyhow::Result<u64> {
    pids.iter()
        .map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("process {pid} is not there: give the server's --server-pid"))?;
            let field = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .context("no VmRSS in /proc")?;
            let number = field.trim().trim_end_matches("kB").trim();
            number.parse::<u64>().context("VmRSS is no number")
        })
        .sum()
}

fn cpu_of(pid: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is not there: give the server's --server-pid"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat is not as documented"))?;
    Ok(TICK * ticks)
}

/// utime + stime. The second field is the program's name in brackets, which may hold spaces and brackets, so fields are counted
/// from the last bracket: state is the first, utime the twelfth.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_past_a_name_with_brackets() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 1 2 3 4 150 25 7 8 20 0 1 0 100 0";
        assert_eq!(cpu_ticks(stat), Some(175));
        assert_eq!(cpu_ticks("42 (a)"), None);
    }

    #[test]
    fn our_own_memory_and_cpu_can_be_read() {
        let pid = std::process::id();
        assert!(rss_kib(&[pid]).unwrap() > 100);
        assert_eq!(
            rss_kib(&[pid, pid]).unwrap() / 2 / 1024,
            rss_kib(&[pid]).unwrap() / 1024
        );
        let before = own_cpu().unwrap();
        while own_cpu().unwrap() == before {
            std::hint::black_box(fs::read("/proc/self/stat").unwrap());
        }
        assert!(rss_kib(&[u32::MAX]).unwrap_err().to_string().contains("--server-pid"));
    }
}
