//! PUT /snapshot/create.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Vmm, host_clock_ms};
use crate::dump::{Kind, dump};
use crate::guest;
use crate::refusal::{Outcome, Refusal, reason};
use crate::state_file::{self, State};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateBody {
    #[serde(default)]
    snapshot_type: Kind,
    snapshot_path: PathBuf,
    mem_file_path: PathBuf,
}

const NOT_ALLOWED: &str = "Cannot save the microVM state: Operation not allowed:";

impl Vmm {
    pub fn create_snapshot(&mut self, body: &CreateBody) -> Outcome {
        self.machine()?;
        let failed = |why: String| Refusal::new(format!("Create snapshot error: {why}"));
        self.faults.read(&self.folder).map_err(failed)?;
        self.write_snapshot(body).map_err(failed)
    }

    /// Errors are a message.
    fn write_snapshot(&mut self, body: &CreateBody) -> Result<(), String> {
        let faults = self.faults.now().clone();
        let machine = self.machine.as_ref().ok_or("no machine")?;
        if !machine.paused {
            return Err(format!("{NOT_ALLOWED} save/restore unavailable while running"));
        }
        if let Some(drive) = self.config.drives.iter().find(|drive| drive.socket.is_some()) {
            let device = format!("vhost-user-block(id: {})", drive.drive_id);
            return Err(format!("{NOT_ALLOWED} Devices without snapshot support are present: {device}"));
        }
        if let Some(text) = faults.fail_create {
            return Err(text);
        }
        let state = State {
            config: self.config.clone(),
            balloon_actual_mib: machine.balloon_actual_mib,
            drivers_up: machine.guest.drivers_up(),
            clock_lag_ms: machine.clock_lag_ms,
            taken_at_ms: host_clock_ms(),
        };
        state_file::write(&body.snapshot_path, &state).map_err(|(verb, error)| {
            format!("Cannot perform {verb} on the snapshot backing file: {}", reason(&error))
        })?;
        dump(&machine.memory, &body.mem_file_path, body.snapshot_type, faults.no_space)?;
        if let Some(dirty) = &machine.memory.dirty {
            dirty.clear();
            // Devices may write to their queues without anybody noticing.
            dirty.mark(guest::QUEUES);
        }
        Ok(())
    }
}
