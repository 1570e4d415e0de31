//! Which of the pages that came in ahead the VM has touched since.
//!
//! Once they are all there, the processor's accessed bits of the VMM's memory are cleared (`/proc/PID/clear_refs`); a page
//! without one at a later look (`/proc/PID/smaps`) was there then and has not been touched since. Pages that come in
//! later have theirs from the start. So the figure is:
//!
//! - exact for a VM that does not run yet when the last page comes in, as is usual: it loads its device state meanwhile;
//! - too large by what the VM touched before that, and not again;
//! - without pages of zeros, which take no memory. A host that runs short of memory clears bits and takes pages out
//!   too: then it is only near.

use std::fs::File;
use std::io::{self, Write};

use crate::page_set::PAGE_BYTES;
use crate::regions::Regions;
use crate::vmm::Vmm;

const KIB: u64 = 1024;

/// Clears the accessed bits of all pages of the process that `file` is the `clear_refs` of.
pub fn clear(mut file: &File) -> io::Result<()> {
    file.write_all(b"1")
}

/// Bytes of the VM's memory that are there and were not touched since `clear`.
pub fn untouched_bytes(vmm: &Vmm) -> io::Result<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", vmm.process.pid))?;
    Ok(count(&smaps, &vmm.regions()))
}

fn count(smaps: &str, regions: &Regions) -> u64 {
    let mut is_guest = false;
    let (mut resident, mut referenced) = (0, 0);
    for line in smaps.lines() {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let total = match name {
            "Rss:" => &mut resident,
            "Referenced:" => &mut referenced,
            _ => {
                if let Some((start, end)) = name.split_once('-')
                    && let (Ok(start), Ok(end)) =
                        (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
                {
                    is_guest = regions.pages(start..end).next().is_some();
                }
                continue;
            }
        };
        if is_guest {
            *total += rest.trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * KIB;
        }
    }
    resident.saturating_sub(referenced) / PAGE_BYTES * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_memory_counts() {
        let json = br#"[{"base_host_virt_addr":1048576,"size":16384,"offset":0,"page_size":4096}]"#;
        let regions = Regions::parse(json, 16384).unwrap();
        let smaps = "00080000-00090000 rw-p 00000000 00:00 0 [heap]\nSize: 64 kB\nRss:   64 kB\nReferenced: 0 kB\n\
            00100000-00102000 rw-p 00000000 00:00 0 \nRss:    8 kB\nReferenced:  4 kB\nVmFlags: rd wr\n\
            00102000-00104000 rw-p 00000000 00:00 0 \nRss:    8 kB\nReferenced:  0 kB\n\
            00104000-00105000 rw-p 00000000 00:00 0 /lib\nRss:    4 kB\nReferenced:  0 kB\n";
        assert_eq!(count(smaps, &regions), 12 * KIB);
        assert_eq!(count("", &regions), 0);
    }
}
