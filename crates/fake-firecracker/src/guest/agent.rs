//! One connection to the guest agent: requests in, answers and streams out.

use std::time::Instant;

use serde_json::json;

use super::control::{self, Answer};
use super::kernel::Kernel;
use super::process::{Execution, end_frame};
use crate::http::{self, Request};

pub const CONTROL_PORT: u16 = 49982;
pub const GUEST_PORT: u16 = 49983;

const BODY_BYTES_MAX: usize = 4 << 20;
const STREAM_TYPE: &str = "application/connect+json";
const START: &str = "/process.Process/Start";

/// The state of a connection; everything of it is lost with the VM.
#[derive(Default)]
pub struct Conversation {
    pub inbound: Vec<u8>,
    pub outbound: Vec<u8>,
    running: Option<Execution>,
    /// The peer said that it sends no more requests, or nonsense.
    pub last: bool,
}

/// What others must know.
#[derive(PartialEq)]
pub enum Effect {
    None,
    NewLife,
}

impl Effect {
    pub fn or(self, other: Effect) -> Effect {
        if self == Effect::None { other } else { self }
    }
}

impl Conversation {
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.outbound.is_empty()
    }

    pub fn wake_at(&self) -> Option<Instant> {
        self.running.as_ref().map(Execution::wake_at)
    }

    /// Takes what came and goes on with what runs.
    pub fn turn(&mut self, kernel: &mut Kernel, port: u16) -> Effect {
        let mut effect = Effect::None;
        while self.running.is_none() && !self.last {
            match Request::take(&mut self.inbound, BODY_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    self.last =
                        request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                    effect = effect.or(self.answer(kernel, port, &request));
                }
                Err(_) => {
                    self.reply(control::error(400, "bad request"));
                    self.last = true;
                }
            }
        }
        // Between a prepare and what follows it, nobody's commands run.
        if self.running.is_some() && kernel.facts().open {
            self.run(kernel);
        }
        effect
    }

    fn answer(&mut self, kernel: &mut Kernel, port: u16, request: &Request) -> Effect {
        if port == GUEST_PORT {
            self.answer_guest(kernel, request);
            return Effect::None;
        }
        if request.path == "/init" && kernel.faults.now().never_answer_init {
            return Effect::None;
        }
        let changed = control::answer(kernel, request);
        self.reply(changed.answer);
        if changed.new_life { Effect::NewLife } else { Effect::None }
    }

    fn answer_guest(&mut self, kernel: &mut Kernel, request: &Request) {
        if matches!(request.method.as_str(), "GET" | "HEAD") && request.path == "/health" {
            return self.reply((204, serde_json::Value::Null));
        }
        let content_type =
            request.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default();
        let facts = kernel.facts();
        let Some(identity) = facts.identity.filter(|_| facts.open) else {
            let message = "the sandbox is not ready";
            let is_call = matches!(content_type, STREAM_TYPE | "application/json");
            return self.reply(match is_call {
                true => (503, json!({ "code": "unavailable", "message": message })),
                false => control::error(503, message),
            });
        };
        if identity.token.is_some() && request.header("x-access-token") != identity.token.as_deref() {
            return self.reply(control::error(401, "invalid or missing access token"));
        }
        match (request.method.as_str(), request.path.as_str(), content_type) {
            ("POST", START, STREAM_TYPE) => match Execution::start(kernel, &identity, request) {
                Ok((execution, first)) => {
                    self.outbound.extend(http::head(200, &[("content-type", STREAM_TYPE)], None));
                    self.outbound.extend(http::chunk(&first));
                    self.running = Some(execution);
                }
                Err(refused) => {
                    let frame = end_frame(Some(&refused));
                    self.outbound.extend(http::answer(200, &[("content-type", STREAM_TYPE)], &frame));
                }
            },
            ("POST", _, STREAM_TYPE | "application/json") => {
                self.reply((501, json!({ "code": "unimplemented", "message": "no such procedure" })));
            }
            _ => self.reply(control::error(404, "no such path")),
        }
    }

    fn run(&mut self, kernel: &mut Kernel) {
        let Some(execution) = &mut self.running else { return };
        let mut frames = Vec::new();
        let goes_on = execution.turn(kernel, &mut frames);
        self.outbound.extend(frames.iter().flat_map(|frame| http::chunk(frame)));
        if !goes_on {
            self.running = None;
            self.outbound.extend(http::chunk(b""));
        }
    }

    fn reply(&mut self, (status, body): Answer) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("content-type", "application/json")];
        let headers = if text.is_empty() { &headers[..0] } else { &headers[..] };
        self.outbound.extend(http::answer(status, headers, text.as_bytes()));
    }
}
