//! Which process a call means.

use std::sync::Arc;

use serde::Deserialize;

use super::table::Process;
use crate::agent::Agent;
use crate::rpc::{Code, Number, RpcError};

#[derive(Debug, Default, Deserialize)]
pub struct Selector {
    pid: Option<Number>,
    tag: Option<String>,
}

impl Selector {
    fn matches(&self, process: &Process) -> bool {
        match (&self.pid, &self.tag) {
            (Some(pid), _) => process.id() == pid.0,
            (None, tag) => tag.is_some() && process.tag == *tag,
        }
    }

    pub fn running(&self, agent: &Agent) -> Result<Arc<Process>, RpcError> {
        let found = agent.processes.running().into_iter().find(|process| self.matches(process));
        found.ok_or_else(|| self.unknown())
    }

    pub fn running_or_ended(&self, agent: &Agent) -> Result<Arc<Process>, RpcError> {
        let ended = |_| agent.processes.ended(|process| self.matches(process)).ok_or_else(|| self.unknown());
        self.running(agent).or_else(ended)
    }

    fn unknown(&self) -> RpcError {
        match (&self.pid, &self.tag) {
            (Some(pid), _) => Code::NotFound.error(format!("process with pid {} not found", pid.0)),
            (None, Some(tag)) => Code::NotFound.error(format!("process with tag {tag} not found")),
            (None, None) => Code::InvalidArgument.error("neither pid nor tag is given"),
        }
    }
}
