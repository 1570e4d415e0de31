//! What the guest's balloon driver does when the amount changed, one MiB at a time from the top of memory down.

use super::Vmm;

const STEP_BYTES: u64 = 1 << 20;

impl Vmm {
    /// Whether the guest has not come to the amount yet.
    pub fn balloon_moves(&self) -> bool {
        let Some(machine) = &self.machine else { return false };
        let target_mib = self.config.balloon.as_ref().map_or(0, |balloon| balloon.amount_mib);
        !machine.paused && machine.balloon_actual_mib != target_mib
    }

    /// Discards until the amount is reached. Each step waits for a pager to read its event, and the API with it.
    pub fn settle_balloon(&mut self) {
        let target_mib = self.config.balloon.as_ref().map_or(0, |balloon| balloon.amount_mib);
        let moves = self.balloon_moves();
        let Some(machine) = self.machine.as_mut().filter(|machine| moves && machine.guest.drivers_up())
        else {
            return;
        };
        while machine.balloon_actual_mib < target_mib {
            let top = machine.memory.size_bytes - u64::from(machine.balloon_actual_mib) * STEP_BYTES;
            if machine.memory.discard(top - STEP_BYTES, STEP_BYTES).is_err() {
                return;
            }
            machine.balloon_actual_mib += 1;
        }
        // Pages that are given back come when they are touched.
        machine.balloon_actual_mib = target_mib;
    }
}
