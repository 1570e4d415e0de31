//! Kernel modules of the initramfs: `/modules/NN-name.ko`, loaded in the order of their numbers.

use std::fs::{self, File};

use rustix::system::finit_module;

use crate::failure::{Context, Failure};

const MODULES_DIR: &str = "/modules";

/// Loads every module and deletes its file: the initramfs is memory of the sandbox.
pub fn load_all() -> Result<(), Failure> {
    let mut paths: Vec<_> = fs::read_dir(MODULES_DIR)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .context("list kernel modules")?;
    paths.sort();
    for path in paths {
        let step = format!("load {}", path.display());
        let file = File::open(&path).context(&step)?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(cause) => return Err(cause).context(&step),
        }
        // A file that stays costs memory, nothing else.
        let _ = fs::remove_file(&path);
    }
    Ok(())
}
