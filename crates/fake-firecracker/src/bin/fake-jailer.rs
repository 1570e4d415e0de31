//! A small jailer that is called as Firecracker's own is, and leaves the VMM in the same place: for tests of Thaw where that
//! one can't be had.
//!
//! `fake-jailer --id ID --exec-file PATH --uid U --gid G [--chroot-base-dir DIR] [--netns PATH]
//! [--resource-limit no-file=N|fsize=N]… [--cgroup-version 1|2] [-- ARGUMENTS OF THE VMM]`
//!
//! In `DIR/<name of the program>/ID/root` it puts the program, devices and /run, makes that the root, becomes the user,
//! and then the VMM, with `--id` and the times of its start before the other arguments.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, LinkNameSpaceType, Uid, UnshareFlags};

const DEVICES: [&str; 4] = ["kvm", "net/tun", "urandom", "userfaultfd"];
const FOLDERS: [&str; 4] = ["", "dev", "dev/net", "run"];
const NO_FILE: u64 = 2048;

fn main() -> ExitCode {
    match Wish::parse(std::env::args().skip(1)).and_then(jail) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("Jailer error: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Never {}

struct Wish {
    id: String,
    program: PathBuf,
    uid: u32,
    gid: u32,
    base: PathBuf,
    netns: Option<PathBuf>,
    limits: Vec<(Resource, u64)>,
    vmm: Vec<String>,
}

impl Wish {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut id, mut program, mut uid, mut gid, mut netns) = (None, None, None, None, None);
        let mut base = PathBuf::from("/srv/jailer");
        let mut limits = vec![(Resource::Nofile, NO_FILE)];
        while let Some(name) = arguments.next() {
            if name == "--" {
                break;
            }
            let value = arguments.next().ok_or_else(|| format!("The argument '{name}' requires a value."))?;
            match name.as_str() {
                "--id" => id = Some(checked_id(value)?),
                "--exec-file" => program = Some(checked_program(&value)?),
                "--uid" => uid = Some(number(&value)?),
                "--gid" => gid = Some(number(&value)?),
                "--chroot-base-dir" => base = PathBuf::from(value),
                "--netns" => netns = Some(PathBuf::from(value)),
                "--resource-limit" => limits.push(limit(&value)?),
                "--cgroup-version" | "--cgroup" | "--parent-cgroup" => {}
                other => return Err(format!("Found argument '{other}' which wasn't expected")),
            }
        }
        let missing = |name: &str| format!("Missing required argument: {name}");
        Ok(Self {
            id: id.ok_or_else(|| missing("id"))?,
            program: program.ok_or_else(|| missing("exec-file"))?,
            uid: uid.ok_or_else(|| missing("uid"))?,
            gid: gid.ok_or_else(|| missing("gid"))?,
            base,
            netns,
            limits,
            vmm: arguments.collect(),
        })
    }

    fn name(&self) -> &std::ffi::OsStr {
        self.program.file_name().unwrap_or_default()
    }
}

/// Other than ids of the API, which take `_` and not `-`.
fn checked_id(id: String) -> Result<String, String> {
    let fits =
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(id) } else { Err(format!("Invalid instance ID: {id}")) }
}

fn checked_program(path: &str) -> Result<PathBuf, String> {
    let program =
        fs::canonicalize(path).map_err(|error| format!("Failed to canonicalize path {path}: {error}"))?;
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !name.contains("firecracker") {
        return Err(format!(
            "Invalid filename. The filename of `--exec-file` option must contain \"firecracker\": {name}"
        ));
    }
    Ok(program)
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn limit(text: &str) -> Result<(Resource, u64), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("Invalid format for resources: {text}"))?;
    let value = value.parse().map_err(|_| format!("Invalid limit value for resource: {text}"))?;
    match name {
        "no-file" => Ok((Resource::Nofile, value)),
        "fsize" => Ok((Resource::Fsize, value)),
        _ => Err(format!("Invalid resource argument: {name}")),
    }
}

fn jail(wish: Wish) -> Result<Never, String> {
    let root = wish.base.join(wish.name()).join(&wish.id).join("root");
    let failed = |what: &str, error: io::Error| format!("Failed to {what}: {error}");
    furnish(&root, &wish).map_err(|error| failed("set up the jail", error))?;
    enter(&root, &wish).map_err(|error| failed("enter the jail", error))?;
    let pid_file = Path::new("/").join(wish.name()).with_extension("pid");
    fs::write(pid_file, std::process::id().to_string()).map_err(|error| failed("write the pid", error))?;
    become_user(&wish).map_err(|error| failed("drop privileges", error))?;
    let times = ["--start-time-us", "0", "--start-time-cpu-us", "0", "--parent-cpu-time-us", "0"];
    let mut command = Command::new(Path::new("/").join(wish.name()));
    command.env_clear().args(["--id", &wish.id]).args(times).args(&wish.vmm);
    Err(failed("exec into the VMM", command.exec()))
}

fn furnish(root: &Path, wish: &Wish) -> io::Result<()> {
    fs::create_dir_all(root)?;
    fs::copy(&wish.program, root.join(wish.name()))?;
    for name in FOLDERS {
        let folder = root.join(name);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        chown(&folder, Some(wish.uid), Some(wish.gid))?;
    }
    for name in DEVICES {
        // Where the host has none there is none in the jail.
        let Ok(device) = fs::metadata(Path::new("/dev").join(name)) else { continue };
        let path = root.join("dev").join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, device.rdev())?;
        chown(&path, Some(wish.uid), Some(wish.gid))?;
    }
    Ok(())
}

fn enter(root: &Path, wish: &Wish) -> io::Result<()> {
    if let Some(netns) = &wish.netns {
        let netns = fs::File::open(netns)?;
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&netns),
            Some(LinkNameSpaceType::Network),
        )?;
    }
    for (resource, value) in &wish.limits {
        rustix::process::setrlimit(*resource, Rlimit { current: Some(*value), maximum: Some(*value) })?;
    }
    // SAFETY: a mount namespace does not affect memory or descriptors, and the process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount_bind_recursive(root, root)?;
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

fn become_user(wish: &Wish) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(wish.uid), Gid::from_raw(wish.gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    Ok(())
}
