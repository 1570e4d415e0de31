//! What the keeper wants from this process.

use std::env;
use std::ffi::CString;
use std::sync::OnceLock;

use crate::abort::abort;
use crate::disk::Wanted;

pub struct Environment {
    pub memory_path: CString,
    pub uffd_device: i32,
    pub pager_socket: String,
    pub mode: Mode,
    /// Written pages are marked by the kernel.
    pub scan: bool,
    /// QEMU waits for a sandbox.
    pub disk: Option<Wanted>,
}

/// How the guest's memory begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Boot,
    Restore,
    Mapped,
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
        mode: one_of(
            "THAW_PAGER_MODE",
            &[("boot", Mode::Boot), ("restore", Mode::Restore), ("mapped", Mode::Mapped)],
        ),
        scan: one_of("THAW_TRACKER", &[("compare", false), ("scan", true)]),
        disk: env::var_os("THAW_DISK_PATH").map(|path| Wanted {
            path: CString::new(path.into_encoded_bytes())
                .unwrap_or_else(|_| abort("THAW_DISK_PATH is no path")),
            size_bytes: variable("THAW_DISK_BYTES")
                .parse()
                .unwrap_or_else(|_| abort("THAW_DISK_BYTES is no number")),
        }),
    })
}

pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| abort(&format!("{name} is not set")))
}

/// What the variable's value stands for; any other value is wrong.
fn one_of<T: Copy>(name: &str, values: &[(&str, T)]) -> T {
    let value = variable(name);
    let found = values.iter().find(|(text, _)| *text == value);
    found.map_or_else(|| abort(&format!("{name} can't be {value:?}")), |(_, meaning)| *meaning)
}
