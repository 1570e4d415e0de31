//! The file system that jailed children see: a small tmpfs at `RUN_DIR/root`, visible in the keeper's mount
//! namespace only. It holds a read-only /usr, a private /dev and /run (`RUN_DIR/vmm`), and what the caller binds.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailSpec {
    uid: u32,
    #[serde(default)]
    binds: Vec<Bind>,
    /// Empty folders of the jail's user.
    #[serde(default)]
    dirs: Vec<String>,
    #[serde(default)]
    devices: Vec<Device>,
    /// The tree is for a jailer of the VMM's own, which wants it at this path below the run folder, and brings the
    /// program and makes the devices by itself.
    jailer_root: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bind {
    source: PathBuf,
    target: String,
    #[serde(default)]
    ro: bool,
}

#[derive(Clone, Copy, Deserialize)]
enum Device {
    #[serde(rename = "null")]
    Null,
    #[serde(rename = "urandom")]
    Urandom,
    #[serde(rename = "kvm")]
    Kvm,
    #[serde(rename = "net/tun")]
    Tun,
    /// For a VMM that registers its memory by itself; the host's node may be root's alone.
    #[serde(rename = "userfaultfd")]
    Userfaultfd,
}

/// A jail's own mounts; they go when it is dropped.
pub struct Jail {
    root: PathBuf,
    uid: u32,
}

const ROOT_OPTIONS: &std::ffi::CStr = c"mode=0755,size=16m,nr_inodes=4096";
const HARDENED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

impl Jail {
    pub fn build(run_dir: &Path, spec: JailSpec) -> io::Result<Self> {
        let root = below(run_dir, spec.jailer_root.as_deref().unwrap_or("/root"))?;
        fs::create_dir_all(&root)?;
        let own = spec.jailer_root.is_none();
        let flags = if own { HARDENED | MountFlags::NOEXEC } else { MountFlags::NOSUID };
        mount("tmpfs", &root, "tmpfs", flags, ROOT_OPTIONS)?;
        let jail = Self { root, uid: spec.uid };
        jail.bind_system()?;
        jail.bind_run(&run_dir.join("vmm"))?;
        if own {
            jail.make_devices(&spec.devices)?;
        }
        for dir in &spec.dirs {
            let path = jail.inside(dir)?;
            fs::create_dir_all(&path)?;
            chown(&path, Some(jail.uid), Some(jail.uid))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        }
        for Bind { source, target, ro } in &spec.binds {
            jail.bind(source, target, if *ro { HARDENED | MountFlags::RDONLY } else { HARDENED })?;
        }
        Ok(jail)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens a FUSE session and mounts it. Only the jail's user may use the file system, not even root.
    pub fn mount_fuse(&self, target: &str) -> io::Result<OwnedFd> {
        let path = self.inside(target)?;
        fs::create_dir_all(&path)?;
        let fd = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let options = format!("fd={},rootmode=40000,user_id={1},group_id={1}", fd.as_raw_fd(), self.uid);
        let options = CString::new(options)?;
        mount("thaw", &path, "fuse.thaw", HARDENED | MountFlags::NOEXEC | MountFlags::NOATIME, &*options)?;
        Ok(fd)
    }

    /// /usr, the links into it that Debian has at the root, and the loader's cache.
    fn bind_system(&self) -> io::Result<()> {
        self.bind(Path::new("/usr"), "/usr", HARDENED | MountFlags::RDONLY)?;
        for name in ["bin", "sbin", "lib", "lib64"] {
            let host = Path::new("/").join(name);
            match fs::symlink_metadata(&host) {
                Ok(found) if found.is_symlink() => symlink(fs::read_link(&host)?, self.root.join(name))?,
                Ok(_) => self.bind(&host, &format!("/{name}"), HARDENED | MountFlags::RDONLY)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let cache = Path::new("/etc/ld.so.cache");
        if cache.exists() {
            self.bind(cache, "/etc/ld.so.cache", HARDENED | MountFlags::RDONLY | MountFlags::NOEXEC)?;
        }
        Ok(())
    }

    fn bind_run(&self, source: &Path) -> io::Result<()> {
        make_dir(source)?;
        chown(source, Some(self.uid), Some(self.uid))?;
        fs::set_permissions(source, fs::Permissions::from_mode(0o700))?;
        self.bind(source, "/run", HARDENED | MountFlags::NOEXEC)
    }

    /// Nodes of the jail's own, so that none depends on the host's permissions or can change them.
    fn make_devices(&self, devices: &[Device]) -> io::Result<()> {
        let dev = self.root.join("dev");
        make_dir(&dev)?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount("tmpfs", &dev, "tmpfs", flags, c"mode=0755,size=64k,nr_inodes=16")?;
        for device in devices {
            let (name, mode) = match device {
                Device::Null => ("null", 0o666),
                Device::Urandom => ("urandom", 0o444),
                Device::Kvm => ("kvm", 0o600),
                Device::Tun => ("net/tun", 0o600),
                Device::Userfaultfd => ("userfaultfd", 0o600),
            };
            let path = dev.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let number = fs::metadata(Path::new("/dev").join(name))?.rdev();
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(mode), number)?;
            chown(&path, Some(self.uid), Some(self.uid))?;
        }
        Ok(())
    }

    fn bind(&self, source: &Path, target: &str, flags: MountFlags) -> io::Result<()> {
        let path = self.inside(target)?;
        if fs::metadata(source)?.is_dir() {
            fs::create_dir_all(&path)?;
        } else {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::File::create(&path)?;
        }
        mount_bind(source, &path)?;
        // Flags of a bind take effect only by a remount.
        Ok(mount_remount(&path, MountFlags::BIND | flags, c"")?)
    }

    /// A path of the jail as the keeper reaches it. Nothing in it may lead out.
    fn inside(&self, path: &str) -> io::Result<PathBuf> {
        below(&self.root, path)
    }
}

fn below(root: &Path, path: &str) -> io::Result<PathBuf> {
    let relative = path.strip_prefix('/').unwrap_or_default();
    let plain = Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
    if relative.is_empty() || !plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: not a path of the jail")));
    }
    Ok(root.join(relative))
}

impl Drop for Jail {
    fn drop(&mut self) {
        let _ = unmount(&self.root, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.root);
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}
