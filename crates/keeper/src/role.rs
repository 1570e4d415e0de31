//! Operations on the children by role, and their exits.

use std::io;

use serde_json::{Value, json};
use thaw_control::ControlError;

use crate::answer::Caller;
use crate::child::Child;
use crate::keeper::Keeper;
use crate::pending::Awaited;
use crate::request::{self, Request};

impl Keeper {
    pub fn spawn(&mut self, request: &mut Request) -> Result<Value, ControlError> {
        let request::Spawn { role, child: spec } = request.body()?;
        if self.running(&role).is_ok() {
            return Err(ControlError::new("invalid_state", format!("{role} is running")));
        }
        let child = Child::spawn(Some(role.clone()), spec, &mut self.stock())?;
        let result = json!({"pid": child.pid.as_raw_nonzero(), "start_time": child.start_time});
        self.children.retain(|_, old| old.role.as_ref() != Some(&role));
        let key = self.next_key();
        self.children.insert(key, child);
        Ok(result)
    }

    pub fn run_once(&mut self, caller: &Caller, request: &mut Request) -> Result<(), ControlError> {
        let request::Run { timeout_ms, child: spec } = request.body()?;
        let child = Child::spawn(None, spec, &mut self.stock())?;
        let key = self.next_key();
        self.children.insert(key, child);
        self.await_outcome(caller, Awaited::Output { child: key }, timeout_ms);
        Ok(())
    }

    pub fn await_exit(
        &mut self,
        caller: &Caller,
        request: &mut Request,
    ) -> Result<Option<Value>, ControlError> {
        let request::Wait { role, timeout_ms } = request.body()?;
        let (key, child) = self.find(&role)?;
        match child.exit {
            Some(exit) => Ok(Some(json!(exit))),
            None => {
                self.await_outcome(caller, Awaited::Exit { child: key }, timeout_ms);
                Ok(None)
            }
        }
    }

    pub fn signal(&mut self, request: &mut Request) -> Result<Value, ControlError> {
        let request::Send { role, signal } = request.body()?;
        let (_, child) = self.find(&role)?;
        if child.is_running() {
            child.signal(signal.signal())?;
        }
        Ok(json!({}))
    }

    pub fn logs(&mut self, request: &mut Request) -> Result<Value, ControlError> {
        let request::Role { role } = request.body()?;
        let (key, _) = self.find(&role)?;
        let child = self.children.get_mut(&key).expect("found above");
        child.drain_output();
        Ok(json!({"text": child.log.text(), "dropped_bytes": child.log.dropped_bytes()}))
    }

    pub fn status(&self) -> Value {
        let mut roles = serde_json::Map::new();
        for child in self.children.values() {
            let Some(role) = &child.role else { continue };
            let facts = json!({"pid": child.pid.as_raw_nonzero(), "start_time": child.start_time,
                "running": child.is_running(), "exit": child.exit});
            roles.insert(role.clone(), facts);
        }
        let kept: Vec<_> = self.kept.keys().collect();
        json!({"pid": std::process::id(), "roles": roles, "kept": kept})
    }

    pub fn notice_exit(&mut self, key: u64) -> io::Result<()> {
        self.hear(key);
        let Some(child) = self.children.get_mut(&key) else { return Ok(()) };
        let Some(exit) = child.reap()? else { return Ok(()) };
        let role = child.role.clone();
        let output = child.log.text();
        let gone =
            || ControlError::new("unavailable", format!("{} has ended", role.as_deref().unwrap_or("it")));
        self.settle(Awaited::Exit { child: key }, &|| Ok(json!(exit)));
        self.settle(Awaited::Output { child: key }, &|| {
            Ok(json!({"code": exit.code, "signal": exit.signal, "output": output}))
        });
        let asked: Vec<Awaited> = self.pending.iter().map(|pending| pending.awaited).collect();
        for awaited in asked {
            if matches!(awaited, Awaited::Answer { child, .. } if child == key) {
                self.settle(awaited, &|| Err(gone()));
            }
        }
        match &role {
            None => drop(self.children.remove(&key)),
            Some(role) => {
                let event = json!({"event": "exit", "role": role, "code": exit.code, "signal": exit.signal});
                self.broadcast(&event);
            }
        }
        Ok(())
    }

    pub fn find(&self, role: &str) -> Result<(u64, &Child), ControlError> {
        let found = self.children.iter().find(|(_, child)| child.role.as_deref() == Some(role));
        found
            .map(|(key, child)| (*key, child))
            .ok_or_else(|| ControlError::new("not_found", format!("there is no {role}")))
    }

    pub fn running(&self, role: &str) -> Result<u64, ControlError> {
        match self.find(role)? {
            (key, child) if child.is_running() => Ok(key),
            _ => Err(ControlError::new("unavailable", format!("{role} has ended"))),
        }
    }
}
