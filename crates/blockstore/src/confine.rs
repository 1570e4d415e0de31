//! Takes away every system call that serving does not need: what is left reaches only descriptors passed in.

use std::collections::BTreeMap;

use linux_raw_sys::general as nr;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};
use thaw_control::ControlError;

const CLONE_THREAD: u64 = nr::CLONE_THREAD as u64;
const PR_SET_NAME: u64 = 15;

/// Calls allowed with any arguments.
const ALLOWED: [u32; 36] = [
    nr::__NR_brk,
    nr::__NR_clock_gettime,
    nr::__NR_clock_nanosleep,
    nr::__NR_close,
    nr::__NR_exit,
    nr::__NR_exit_group,
    nr::__NR_fallocate,
    nr::__NR_fdatasync,
    nr::__NR_fstat,
    nr::__NR_fsync,
    nr::__NR_ftruncate,
    nr::__NR_futex,
    nr::__NR_getrandom,
    nr::__NR_gettid,
    nr::__NR_lseek,
    nr::__NR_madvise,
    nr::__NR_mmap,
    nr::__NR_mprotect,
    nr::__NR_mremap,
    nr::__NR_munmap,
    nr::__NR_nanosleep,
    nr::__NR_pread64,
    nr::__NR_pwrite64,
    nr::__NR_read,
    nr::__NR_readv,
    nr::__NR_recvmsg,
    nr::__NR_restart_syscall,
    nr::__NR_rt_sigaction,
    nr::__NR_rt_sigprocmask,
    nr::__NR_rt_sigreturn,
    nr::__NR_sched_yield,
    nr::__NR_sendmsg,
    nr::__NR_sigaltstack,
    nr::__NR_tkill,
    nr::__NR_write,
    nr::__NR_writev,
];

/// Holds for every thread, present and future. A call outside the list fails with EPERM: an oversight here should cost
/// one request and not the disk of a running machine.
pub fn confine() -> Result<(), ControlError> {
    let program = program().map_err(|error| ControlError::new("internal", format!("seccomp: {error}")))?;
    apply_filter_all_threads(&program)
        .map_err(|error| ControlError::new("internal", format!("seccomp: {error}")))
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|number| (i64::from(*number), Vec::new())).collect();
    // Threads, but no processes; their names, but nothing else of prctl.
    let thread = SeccompCmpOp::MaskedEq(CLONE_THREAD);
    rules.insert(i64::from(nr::__NR_clone), vec![first_argument(thread, CLONE_THREAD)?]);
    rules.insert(i64::from(nr::__NR_prctl), vec![first_argument(SeccompCmpOp::Eq, PR_SET_NAME)?]);
    let refuse = SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error() as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()
}

fn first_argument(operation: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, operation, value)?])
}
