//! PATCH /vm, and the actions of a VM that runs.

use std::io::Write;

use super::Vmm;
use crate::refusal::Outcome;

impl Vmm {
    /// Waits until the guest stands still: for ever when it waits for a page that nobody serves.
    pub fn pause(&mut self) -> Outcome {
        let machine = self.machine()?;
        machine.guest.pause();
        machine.paused = true;
        Ok(())
    }

    pub fn resume(&mut self) -> Outcome {
        let machine = self.machine()?;
        machine.guest.resume();
        machine.paused = false;
        Ok(())
    }

    pub fn flush_metrics(&mut self) -> Outcome {
        self.machine()?;
        if let Some(file) = &mut self.open.metrics {
            let _ = file.write_all(b"{}\n");
        }
        Ok(())
    }

    /// The guest obeys: it resets, which ends the process.
    pub fn send_ctrl_alt_del(&mut self) -> Outcome {
        self.machine()?.guest.reset();
        Ok(())
    }
}
