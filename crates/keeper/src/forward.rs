//! Between the host agent and a child's control channel.
//!
//! A descriptor that comes with a child's event is kept as `{role}.{event}` (the pager's uffd is `pager.handshake`),
//! a second one as `{role}.{event}.1` (the VMM's socket): while the keeper holds it, the child may die and be replaced.

use std::os::fd::AsFd;

use serde_json::{Value, json};
use thaw_control::ControlError;

use crate::answer::Caller;
use crate::keeper::Keeper;
use crate::pending::{Awaited, Pending};
use crate::request::{Ask, Request};

impl Keeper {
    pub fn ask(&mut self, caller: &Caller, request: &mut Request) -> Result<(), ControlError> {
        let Ask { role, request: mut body, fds: sources, timeout_ms } = request.body()?;
        let key = self.running(&role)?;
        let mut fds = Vec::new();
        for source in &sources {
            fds.push(source.open(&mut self.stock())?);
        }
        self.last_question += 1;
        let question = self.last_question;
        body.insert("id".to_owned(), json!(question));
        let channel = self.children.get(&key).and_then(|child| child.channel.as_ref());
        let channel =
            channel.ok_or_else(|| ControlError::new("invalid_state", format!("{role} takes no requests")))?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        channel
            .send(&Value::Object(body), &borrowed)
            .map_err(|error| ControlError::new("unavailable", format!("{role}: {error}")))?;
        self.await_outcome(caller, Awaited::Answer { child: key, question }, timeout_ms);
        Ok(())
    }

    /// Takes everything the child has said.
    pub fn hear(&mut self, key: u64) {
        loop {
            let Some(child) = self.children.get_mut(&key) else { return };
            let Some(channel) = &child.channel else { return };
            match channel.recv() {
                Ok(Some(message)) => self.take_message(key, message),
                Err(error) if crate::connection::is_later(&error) => return,
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    eprintln!("a child's message was not understood: {error}");
                }
                Ok(None) | Err(_) => {
                    child.channel = None;
                    return;
                }
            }
        }
    }

    fn take_message(&mut self, key: u64, message: thaw_control::Message) {
        if let Some(event) = message.json.get("event").and_then(Value::as_str) {
            let Some(role) = self.children.get(&key).and_then(|child| child.role.clone()) else { return };
            for (index, fd) in message.fds.into_iter().enumerate() {
                let suffix = if index == 0 { String::new() } else { format!(".{index}") };
                self.kept.insert(format!("{role}.{event}{suffix}"), fd);
            }
            self.broadcast(&json!({"event": "child", "role": role, "body": message.json}));
            return;
        }
        let Some(question) = message.json.get("id").and_then(Value::as_u64) else { return };
        let is_this = |pending: &Pending| matches!(pending.awaited, Awaited::Answer { child, question: asked } if child == key && asked == question);
        // No match: the caller was told long ago that it took too long.
        if let Some(index) = self.pending.iter().position(is_this) {
            let pending = self.pending.swap_remove(index);
            let mut frame = message.json;
            frame["id"] = pending.caller.id.clone();
            self.send(pending.caller.connection, &frame);
        }
    }
}
