//! `List`: the processes that have not ended.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::agent::Agent;

#[derive(Deserialize)]
pub struct Request {}

pub fn list(agent: &Agent) -> Value {
    let processes: Vec<Value> = agent
        .processes
        .running()
        .iter()
        .map(|process| {
            let mut info = json!({ "config": process.config, "pid": process.id() });
            if let Some(tag) = &process.tag {
                info["tag"] = tag.as_str().into();
            }
            info
        })
        .collect();
    json!({ "processes": processes })
}
