//! One subscriber's stream: start, then what the process does, then the end of the stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::header::HeaderMap;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::event::{self, Event};
use super::table::{Process, Subscription};
use crate::agent::Agent;
use crate::body::Body;
use crate::rpc::{self, Code, RpcError, Stream};

pub struct Events {
    process: Arc<Process>,
    state: State,
    keepalive_every: Duration,
    keepalive: Pin<Box<Sleep>>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The process dies when the stream is dropped before its end; the number is the VM's life.
    kill: Option<(Arc<Agent>, u64)>,
}

enum State {
    Start(Subscription),
    Live(mpsc::Receiver<Event>),
    Ended(Event),
    EndOfStream(Option<RpcError>),
    Done,
}

impl Events {
    /// Subscribes now: nothing that happens from here on is missed.
    pub fn new(process: Arc<Process>, headers: &HeaderMap, deadline: Option<Instant>) -> Events {
        let keepalive_every = rpc::keepalive_every(headers);
        Events {
            state: State::Start(process.subscribe()),
            process,
            keepalive_every,
            keepalive: Box::pin(sleep_until(Instant::now() + keepalive_every)),
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            kill: None,
        }
    }

    pub fn kill_when_dropped(mut self, agent: Arc<Agent>, life: u64) -> Events {
        self.kill = Some((agent, life));
        self
    }

    pub fn into_body(self) -> Body {
        self.boxed_unsync()
    }

    /// The next frame; the deadline goes before what the process did, so that a killed process is told as timed out.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let timed_out =
            self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready());
        if timed_out && matches!(self.state, State::Live(_) | State::Ended(_)) {
            self.deadline = None;
            let error = Code::DeadlineExceeded.error("the process ran longer than its limit");
            self.state = State::EndOfStream(Some(error));
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Start(subscription) => {
                self.state = match subscription {
                    Subscription::Live(events) => State::Live(events),
                    Subscription::Ended(end) => State::Ended(end),
                };
                Poll::Ready(Some(event::start(self.process.id())))
            }
            State::Live(events) => self.poll_live(events, context),
            State::Ended(Event::Data(frame) | Event::End(frame)) => {
                self.state = State::EndOfStream(None);
                Poll::Ready(Some(frame))
            }
            State::EndOfStream(error) => Poll::Ready(Some(Stream::end(error.as_ref()))),
            State::Done => Poll::Ready(None),
        }
    }

    fn poll_live(
        &mut self,
        mut events: mpsc::Receiver<Event>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        match events.poll_recv(context) {
            Poll::Ready(Some(Event::Data(frame))) => {
                self.state = State::Live(events);
                self.keepalive.as_mut().reset(Instant::now() + self.keepalive_every);
                Poll::Ready(Some(frame))
            }
            Poll::Ready(Some(Event::End(frame))) => {
                self.state = State::EndOfStream(None);
                Poll::Ready(Some(frame))
            }
            Poll::Ready(None) => {
                Poll::Ready(Some(Stream::end(Some(&Code::Internal.error("the process was lost")))))
            }
            Poll::Pending => {
                self.state = State::Live(events);
                if self.keepalive.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.keepalive.as_mut().reset(Instant::now() + self.keepalive_every);
                Poll::Ready(Some(event::keepalive()))
            }
        }
    }
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.poll_next(context).map(|frame| frame.map(|frame| Ok(Frame::data(frame))))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some((agent, life)) = self.kill.take() {
            agent.gate.caller_left(life, &self.process);
        }
    }
}
