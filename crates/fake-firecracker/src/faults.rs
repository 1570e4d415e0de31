//! What is to go wrong, as `faults.json` says; the table is in `main.rs`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    pub version: Option<String>,
    pub die_in_load: bool,
    pub fail_load: Option<String>,
    pub hang_in_load: bool,
    pub hang_on: Option<String>,
    pub slow_ms: BTreeMap<String, u64>,
    pub fail_create: Option<String>,
    pub no_space: bool,
    pub silent_tap: bool,
    pub never_answer_init: bool,
    pub exit_after_ms: Option<u64>,
    pub exit_code: Option<u8>,
}

/// The faults of one process, seen by its API and its guest.
#[derive(Clone, Default)]
pub struct FaultPlan {
    current: Arc<Mutex<Faults>>,
}

impl FaultPlan {
    /// Reads the file anew; without one nothing goes wrong. A file that makes no sense is an error: a test that
    /// believes in its fault must not pass without it.
    pub fn read(&self, folder: &Path) -> Result<(), String> {
        let faults: Faults = match std::fs::read(folder.join("faults.json")) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| format!("faults.json: {error}"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Faults::default(),
            Err(error) => return Err(format!("faults.json: {error}")),
        };
        if let Some(ms) = faults.exit_after_ms {
            let code = faults.code();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(ms));
                std::process::exit(code);
            });
        }
        *self.now() = faults;
        Ok(())
    }

    pub fn now(&self) -> MutexGuard<'_, Faults> {
        self.current.lock().unwrap()
    }
}

impl Faults {
    pub fn code(&self) -> i32 {
        self.exit_code.unwrap_or(1).into()
    }
}

/// Never returns.
pub fn hang() -> ! {
    loop {
        std::thread::park();
    }
}
