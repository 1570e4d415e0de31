//! /boot-source.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::refusal::{Outcome, reason, refuse};
use crate::version::Version;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    pub kernel_image_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_args: Option<String>,
}

const BOOT_ARGS_BYTES_MAX: usize = 2048;
const ELF_MAGIC: &[u8] = b"\x7fELF";
/// Where a bzImage has its boot sector's mark and its header's.
const BZIMAGE_MARKS: [(u64, &[u8]); 2] = [(0x1fe, b"\x55\xaa"), (0x202, b"HdrS")];

impl BootSource {
    /// Files are opened, and not read before the start.
    pub fn check(&self) -> Outcome {
        if let Err(error) = File::open(&self.kernel_image_path) {
            return refuse(format!(
                "Boot source error: The kernel file cannot be opened: {}",
                reason(&error)
            ));
        }
        if let Some(Err(error)) = self.initrd_path.as_ref().map(File::open) {
            return refuse(format!(
                "Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. {}",
                reason(&error)
            ));
        }
        if self.boot_args.as_ref().is_some_and(|args| args.len() > BOOT_ARGS_BYTES_MAX) {
            return refuse(
                "Boot source error: The kernel command line is invalid: Command line string overflows limit",
            );
        }
        Ok(())
    }

    /// Errors are a message.
    pub fn load(&self, version: &Version) -> Result<(), String> {
        let file = File::open(&self.kernel_image_path)
            .map_err(|error| format!("Cannot open kernel file: {error}"))?;
        let has = |at: u64, mark: &[u8]| {
            let mut bytes = vec![0; mark.len()];
            file.read_exact_at(&mut bytes, at).is_ok() && bytes == mark
        };
        if has(0, ELF_MAGIC) || version.has(17) && BZIMAGE_MARKS.iter().all(|(at, mark)| has(*at, mark)) {
            return Ok(());
        }
        Err(match version.has(17) {
            true => "failed to load bzImage kernel image: Kernel Loader: Invalid bzImage".into(),
            false => "failed to load ELF kernel image: Kernel Loader: Invalid ELF magic number".into(),
        })
    }
}
