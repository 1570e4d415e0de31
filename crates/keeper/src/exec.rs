//! From a plan to a running child: what happens between fork and exec.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Pid, Resource, Rlimit, Signal, getpid};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, LinkNameSpaceType, Uid, UnshareFlags};

/// Numbers below this are free for a child's inherited descriptors: the keeper occupies them itself, so no
/// descriptor it opens (nor the pipe by which a failed exec is reported) can be overwritten by `dup2`.
/// A VMM that maps builds has one for each: 256 at most (backend.ts of the host agent), beside 14 others.
pub const CHILD_FDS_END: RawFd = 320;

/// Occupies the numbers below [`CHILD_FDS_END`] for as long as the result lives.
pub fn reserve_child_fds() -> io::Result<Vec<OwnedFd>> {
    let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
    let mut reserved = Vec::new();
    loop {
        let next = rustix::io::fcntl_dupfd_cloexec(&null, 3)?;
        if std::os::fd::AsRawFd::as_raw_fd(&next) >= CHILD_FDS_END {
            reserved.push(null);
            return Ok(reserved);
        }
        reserved.push(next);
    }
}

/// How a child runs. Everything that needs memory or a path lookup as root is resolved before the fork.
pub struct Launch {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub uid: u32,
    pub gid: u32,
    pub caps: CapabilitySet,
    /// Keeps all rights.
    pub privileged: bool,
    /// The root of its own mount namespace, entered before dropping privileges.
    pub root: Option<CString>,
    pub netns: Option<OwnedFd>,
    /// (number in the child, descriptor)
    pub fds: Vec<(RawFd, OwnedFd)>,
    pub nice: Option<i32>,
    pub rlimits: Vec<(Resource, u64)>,
    pub output: OwnedFd,
}

/// Starts the child; returns when its exec has succeeded, or with the reason why not.
/// The parent-death signal is tied to the calling thread, which therefore has to live as long as the keeper.
pub fn launch(mut launch: Launch) -> io::Result<Pid> {
    let Some((program, arguments)) = launch.argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "empty argv"));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(launch.env.drain(..));
    command.stdin(Stdio::null());
    command.stdout(launch.output.try_clone()?).stderr(launch.output.try_clone()?);
    let parent = getpid();
    let plan = Plan {
        parent,
        uid: Uid::from_raw(launch.uid),
        gid: Gid::from_raw(launch.gid),
        caps: launch.caps,
        privileged: launch.privileged,
        root: launch.root,
        netns: launch.netns,
        fds: launch.fds,
        nice: launch.nice,
        rlimits: launch.rlimits,
    };
    // SAFETY: between fork and exec only system calls on data made before the fork are used: `become_child`
    // allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || become_child(&plan)) };
    let child = command.spawn()?;
    Ok(Pid::from_child(&child))
}

struct Plan {
    parent: Pid,
    uid: Uid,
    gid: Gid,
    caps: CapabilitySet,
    privileged: bool,
    root: Option<CString>,
    netns: Option<OwnedFd>,
    fds: Vec<(RawFd, OwnedFd)>,
    nice: Option<i32>,
    rlimits: Vec<(Resource, u64)>,
}

fn become_child(plan: &Plan) -> io::Result<()> {
    for (number, fd) in &plan.fds {
        put_fd(fd, *number)?;
    }
    if let Some(netns) = &plan.netns {
        rustix::thread::move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    for (resource, limit) in &plan.rlimits {
        rustix::process::setrlimit(*resource, Rlimit { current: Some(*limit), maximum: Some(*limit) })?;
    }
    if let Some(nice) = plan.nice {
        rustix::process::setpriority_process(None, nice)?;
    }
    if let Some(root) = &plan.root {
        enter_jail(root)?;
    }
    rustix::process::chdir(c"/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if !plan.privileged {
        drop_privileges(plan)?;
    }
    // Last: a change of credentials clears the parent-death signal.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(plan.parent) {
        return Err(rustix::io::Errno::SRCH.into());
    }
    Ok(())
}

/// From here on the jail is all there is: no mount of the host is left in this process's namespace.
fn enter_jail(root: &CStr) -> io::Result<()> {
    let own = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: none of these namespaces affects memory or descriptors, and a forked child has one thread.
    unsafe { rustix::thread::unshare_unsafe(own) }?;
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::process::chdir(root)?;
    // Stacks the old root on the new one, where it is taken off.
    rustix::process::pivot_root(c".", c".")?;
    Ok(unmount(c".", UnmountFlags::DETACH)?)
}

fn drop_privileges(plan: &Plan) -> io::Result<()> {
    const CAPABILITIES_END: u32 = 64;
    for bit in 0..CAPABILITIES_END {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if !plan.caps.contains(capability)
            && rustix::thread::remove_capability_from_bounding_set(capability).is_err()
        {
            break;
        }
    }
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(plan.gid, plan.gid, plan.gid)?;
    rustix::thread::set_keep_capabilities(true)?;
    rustix::thread::set_thread_res_uid(plan.uid, plan.uid, plan.uid)?;
    let sets = CapabilitySets { effective: plan.caps, permitted: plan.caps, inheritable: plan.caps };
    rustix::thread::set_capabilities(None, sets)?;
    for capability in plan.caps {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Makes `fd` available as `number`, open across exec.
fn put_fd(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: runs in the forked child, where `number` is one of the reserved placeholders (the caller checked
    // the range) that nothing will use again; forgetting the owner leaves it open for exec.
    let mut target = unsafe { OwnedFd::from_raw_fd(number) };
    let result = rustix::io::dup2(fd, &mut target);
    std::mem::forget(target);
    Ok(result?)
}
