//! The file systems of a sandbox: the root disk, and the kernel's own below it.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

use crate::failure::{Context, Failure};

const ROOT_DISK: &str = "/dev/vda";
const ROOT_DISK_WAIT: Duration = Duration::from_secs(10);
/// No background writes after a mount: the kernel would zero inode tables (already zero in a sparse disk)
/// and read every block bitmap, and each block touched makes the next snapshot larger.
const ROOT_OPTIONS: &CStr = c"noinit_itable,no_prefetch_block_bitmaps,user_xattr,errors=remount-ro";

const NO_SUID_DEV: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NO_SUID_EXEC: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const PLAIN_DATA: MountFlags = NO_SUID_DEV.union(MountFlags::NOEXEC);

/// One mount: type, target, flags, options.
type Entry = (&'static str, &'static str, MountFlags, Option<&'static CStr>);

const SYSTEM: &[Entry] = &[
    ("proc", "/proc", PLAIN_DATA, None),
    ("sysfs", "/sys", PLAIN_DATA, None),
    // Every program starts by joining a cgroup. Without the second option the first one in a while waits for that:
    // the kernel lets a grace period of RCU pass, some 10 ms.
    ("cgroup2", "/sys/fs/cgroup", PLAIN_DATA, Some(c"nsdelegate,favordynmods")),
    ("devpts", "/dev/pts", NO_SUID_EXEC, Some(c"mode=620,ptmxmode=666,gid=5")),
    ("tmpfs", "/dev/shm", NO_SUID_DEV, Some(c"mode=1777")),
    ("tmpfs", "/run", NO_SUID_DEV, Some(c"mode=755,size=20%")),
];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Device nodes, in the initramfs for now.
pub fn mount_devices() -> Result<(), Failure> {
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, c"mode=755").context("mount /dev")
}

/// Mounts the root disk and makes it the root of this process and all later ones.
pub fn enter_root_disk() -> Result<(), Failure> {
    wait_for(Path::new(ROOT_DISK))?;
    mount(ROOT_DISK, "/root", "ext4", MountFlags::NOATIME, ROOT_OPTIONS).context("mount the root disk")?;
    mount_move("/dev", "/root/dev").context("move /dev")?;
    chdir("/root").context("enter the root disk")?;
    mount_move(".", "/").context("move the root disk")?;
    chroot(".").context("change root")?;
    chdir("/").context("change directory")
}

/// The kernel's file systems and those in memory.
pub fn mount_system() -> Result<(), Failure> {
    for (kind, target, flags, options) in SYSTEM {
        let step = format!("mount {target}");
        if target.starts_with("/dev/") {
            fs::create_dir_all(target).context(&step)?;
        }
        mount(*kind, *target, *kind, *flags, *options).context(&step)?;
    }
    for (target, link) in LINKS {
        symlink(target, link).context(link)?;
    }
    for dir in ["/run/lock", "/run/user"] {
        fs::create_dir(dir).context(dir)?;
    }
    Ok(())
}

/// The disk's node appears when its driver has probed it, which is usually over already.
fn wait_for(path: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + ROOT_DISK_WAIT;
    while !path.exists() {
        if Instant::now() > deadline {
            return Err(Failure::new(format!("{} did not appear", path.display())));
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}
