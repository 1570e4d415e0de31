//! A new process that runs a program, made without copying the agent: the child borrows the agent's memory until it
//! executes the program, and the calling thread waits for that (vfork(2)). Copying page tables, and the faults that
//! write each page of the agent anew afterwards, are much of what a first command after a resume would cost.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, WaitId, WaitIdOptions, setrlimit, waitid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::kernel::expendable;
use crate::user::User;

/// All that the child needs, allocated before there is one.
pub struct Plan<'a> {
    /// The files to try, in this order.
    pub programs: Vec<CString>,
    pub argv: Vec<CString>,
    /// `NAME=value`.
    pub env: Vec<CString>,
    pub cwd: CString,
    pub user: &'a User,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// Standard input is the terminal that controls the session.
    pub has_terminal: bool,
    /// Where a process writes `0` to join.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Not reaped by itself.
pub struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// The agent itself may open more; these are the limits that distributions give to logins.
const OPEN_FILES: Rlimit = Rlimit { current: Some(1024), maximum: Some(524_288) };
const STACK_BYTES: usize = 64 * 1024;

struct Birth<'a> {
    plan: &'a Plan<'a>,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// Why the program was not executed.
    error: Option<Errno>,
}

/// Starts the program as the leader of a session of its own. Blocks until it was executed, or failed to.
pub fn spawn(plan: &Plan) -> io::Result<Child> {
    let mut birth = Birth { plan, argv: pointers(&plan.argv), env: pointers(&plan.env), error: None };
    let mut stack: Vec<u128> = Vec::with_capacity(STACK_BYTES / size_of::<u128>());
    let stack_top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let pid = {
        // A handler of the agent that ran in the child would run in the agent's memory.
        let _blocked = SignalsBlocked::new();
        // SAFETY: the child runs `enter` on a stack of its own, which outlives it, as does `birth`: this thread goes
        // on only when the child has executed a program or ended, and no other thread knows of the two.
        expendable(|| unsafe {
            libc::clone(
                enter,
                stack_top.cast(),
                flags,
                ptr::from_mut(&mut birth).cast::<c_void>(),
                ptr::from_mut(&mut pidfd),
            )
        })
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    if let Some(error) = birth.error {
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        return Err(error.into());
    }
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("the process has no pid"))?;
    Ok(Child { pid, pidfd })
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain(std::iter::once(ptr::null())).collect()
}

/// The child, from its first instruction. What it returns is its exit status.
extern "C" fn enter(birth: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its `birth` and waits.
    let birth = unsafe { &mut *birth.cast::<Birth>() };
    birth.error = Some(match prepare(birth.plan) {
        Ok(()) => execute(birth),
        Err(error) => error,
    });
    127
}

/// System calls only: the child shares the memory, the locks of the allocator included. Those of rustix go to the
/// kernel directly and mean the one task that makes them, where those of the C library may mean all threads.
fn prepare(plan: &Plan) -> rustix::io::Result<()> {
    rustix::process::setsid()?;
    dup2_stdin(plan.stdin)?;
    dup2_stdout(plan.stdout)?;
    dup2_stderr(plan.stderr)?;
    if plan.has_terminal {
        rustix::process::ioctl_tiocsctty(plan.stdin)?;
    }
    if let Some(cgroup) = plan.cgroup {
        rustix::io::write(cgroup, b"0")?;
    }
    let _ = setrlimit(Resource::Nofile, OPEN_FILES);
    set_thread_groups(&plan.user.groups)?;
    set_thread_res_gid(plan.user.gid, plan.user.gid, plan.user.gid)?;
    // From here on the user may signal the child, but not look into the memory that it shares: the kernel makes
    // memory undumpable when its user changes.
    set_thread_res_uid(plan.user.uid, plan.user.uid, plan.user.uid)?;
    rustix::process::chdir(plan.cwd.as_c_str())
}

/// Comes back only with an error: that of the first file that is there and cannot be executed, or that none is there.
fn execute(birth: &Birth) -> Errno {
    // SAFETY: changes the child alone, whose table of handlers is a copy; no handler is installed.
    unsafe {
        // Those that the agent does not have at their default; the others a new program gets from the kernel.
        for signal in [libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS] {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
    let mut denied = None;
    for program in &birth.plan.programs {
        let error = execute_file(program, birth);
        match error {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => denied = Some(error),
            error => return error,
        }
    }
    denied.unwrap_or(Errno::NOENT)
}

fn execute_file(program: &CStr, birth: &Birth) -> Errno {
    // SAFETY: the path and both lists end with a zero, and live until the program runs.
    unsafe { libc::execve(program.as_ptr(), birth.argv.as_ptr(), birth.env.as_ptr()) };
    // SAFETY: the address of this thread's errno, which the child borrows.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The calling thread takes no signal while this lives.
struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    fn new() -> SignalsBlocked {
        // SAFETY: two sets of our own, of which the first is filled before use.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            SignalsBlocked(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set that `new` was given.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}
