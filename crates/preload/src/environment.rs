//! What the keeper wants from this process.

use std::env;
use std::ffi::CString;
use std::sync::OnceLock;

use crate::abort::abort;

pub struct Environment {
    pub memory_path: CString,
    pub uffd_device: i32,
    pub pager_socket: String,
    pub restore: bool,
    /// Written pages are marked by the kernel.
    pub scan: bool,
}

static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();

/// The environment as it was at the first call; ends the process if anything is missing or wrong.
pub fn read() -> &'static Environment {
    ENVIRONMENT.get_or_init(|| Environment {
        memory_path: CString::new(variable("THAW_MEM_PATH"))
            .unwrap_or_else(|_| abort("THAW_MEM_PATH is no path")),
        uffd_device: variable("THAW_UFFD_DEV_FD")
            .parse()
            .unwrap_or_else(|_| abort("THAW_UFFD_DEV_FD is no descriptor")),
        pager_socket: variable("THAW_PAGER_SOCKET"),
        restore: one_of("THAW_PAGER_MODE", "boot", "restore"),
        scan: one_of("THAW_TRACKER", "compare", "scan"),
    })
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| abort(&format!("{name} is not set")))
}

/// Whether the variable is `yes`; anything but the two is wrong.
fn one_of(name: &str, no: &str, yes: &str) -> bool {
    let value = variable(name);
    if value != no && value != yes {
        abort(&format!("{name} is neither {no} nor {yes}"));
    }
    value == yes
}
