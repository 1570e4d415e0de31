//! `start`: takes the memory's source and the listening socket, and begins to serve.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::{Value, json};
use thaw_control::{Channel, ControlError, Request};

use crate::ahead::Ahead;
use crate::handshake;
use crate::page_set::PAGE_BYTES;
use crate::pagemap::can_scan;
use crate::serve::serve;
use crate::session::{Mode, Session, Tracker};
use crate::source::{BytesByBuild, Source};
use crate::state::State;
use crate::workset;

/// 16 TiB: what one state file and one header can sensibly describe.
const MEMORY_BYTES_MAX: u64 = 1 << 44;

/// So many of the pages that changed last are likely to be needed again: 4 MiB.
const CHANGED_PAGES_MAX: u64 = 1024;

#[derive(Deserialize)]
struct Start {
    mode: WantedMode,
    memory_bytes: u64,
    tracker: WantedTracker,
    peer_uid: u32,
    listen: usize,
    state: usize,
    header: Option<usize>,
    #[serde(default)]
    builds: BTreeMap<String, usize>,
    /// A record of the pages to install ahead.
    workset: Option<usize>,
    /// Whose turn it is to be left out of them.
    turn: Option<u64>,
    /// There is no record of this very image, at best its parent's: what has changed since is likely to be needed too.
    #[serde(default)]
    likely: bool,
    /// Of a VMM that is taken over: what the keeper kept of its handshake.
    uffd: Option<usize>,
    socket: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum WantedMode {
    Boot,
    Restore,
    /// The VMM has mapped the build's files itself; pages are only compared with them.
    Mapped,
    /// In the place of a pager that died.
    TakeOver,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum WantedTracker {
    Auto,
    Scan,
    Compare,
}

pub fn start(channel: &Arc<Channel>, mut request: Request) -> Result<(Arc<Session>, Value), ControlError> {
    let body: Start = request.body()?;
    if body.memory_bytes == 0
        || body.memory_bytes > MEMORY_BYTES_MAX
        || !body.memory_bytes.is_multiple_of(PAGE_BYTES)
    {
        return Err(ControlError::invalid(format!("{} bytes of memory", body.memory_bytes)));
    }
    let tracker = choose(&body.tracker)?;
    let listener = request.take_fd(body.listen)?;
    let state = request.take_fd(body.state)?;
    let state = match (&body.mode, body.header) {
        (WantedMode::Boot, None) => State::create(state, body.memory_bytes, Mode::Boot)?,
        (WantedMode::Restore, Some(_)) => State::create(state, body.memory_bytes, Mode::Restore)?,
        (WantedMode::Mapped, Some(_)) => State::create(state, body.memory_bytes, Mode::Mapped)?,
        (WantedMode::TakeOver, _) => State::adopt(state, body.memory_bytes)?,
        _ => return Err(ControlError::invalid("a restore needs a header, a boot has none")),
    };
    let mode = state.mode();
    let mut bytes_by_build = BytesByBuild::new();
    let source = match body.header {
        None if mode != Mode::Boot => return Err(ControlError::invalid("no header")),
        None => Source::empty(body.memory_bytes),
        Some(header) => {
            let header = request.take_fd(header)?;
            let builds = take_builds(&mut request, &body.builds)?;
            Source::open(header, builds, body.memory_bytes, &mut bytes_by_build)?
        }
    };
    let channel = Arc::clone(channel);
    let mut session = Session::new(channel, body.memory_bytes, mode, tracker, body.peer_uid, state, source);
    session.bytes_by_build = Mutex::new(bytes_by_build);
    if let WantedMode::Restore = body.mode {
        let record = body.workset.map(|index| request.take_fd(index)).transpose()?;
        session.ahead = plan(&session, record, &body);
    }
    if let WantedMode::TakeOver = body.mode {
        take_over(&session, &mut request, body.uffd, body.socket)?;
    }
    let session = Arc::new(session);
    spawn(Arc::clone(&session), listener)?;
    Ok((session, json!({"tracker": tracker.name()})))
}

/// What to install ahead.
fn plan(session: &Session, file: Option<OwnedFd>, body: &Start) -> Ahead {
    let is_recorded = file.is_some() && !body.likely;
    let record = file.and_then(|file| match workset::read(file, session.pages()) {
        Ok(record) => Some(record),
        Err(error) => {
            eprintln!("thaw-pager: the working set is passed over: {error}");
            None
        }
    });
    match record {
        Some(record) if is_recorded => Ahead::recorded(session.pages(), &record, body.turn),
        record if is_recorded || body.likely => {
            let earlier = record.into_iter().flatten().map(|needed| needed.pages);
            Ahead::likely(session.pages(), earlier.chain(session.source().own(CHANGED_PAGES_MAX)))
        }
        _ => Ahead::none(session.pages()),
    }
}

/// From here on the session has the VMM that its predecessor had; its working set is not recorded any more.
fn take_over(
    session: &Session,
    request: &mut Request,
    uffd: Option<usize>,
    socket: Option<usize>,
) -> Result<(), ControlError> {
    let (Some(uffd), Some(socket)) = (uffd, socket) else {
        // A VMM that fills its memory itself never shook hands with the one before either.
        return match session.state.has_regions() {
            false => Ok(()),
            true => Err(ControlError::invalid("a take-over needs the userfaultfd and the socket")),
        };
    };
    let regions = session.state.regions().map_err(ControlError::invalid)?;
    let (uffd, socket) = (request.take_fd(uffd)?, request.take_fd(socket)?);
    let vmm = handshake::take_over(socket, uffd, session.peer_uid, regions).map_err(ControlError::invalid)?;
    session.recorder.end();
    let _ = session.vmm.set(vmm);
    Ok(())
}

/// The descriptors of every build's memfile.
pub fn take_builds(
    request: &mut Request,
    builds: &BTreeMap<String, usize>,
) -> Result<BTreeMap<String, OwnedFd>, ControlError> {
    builds.iter().map(|(id, index)| Ok((id.clone(), request.take_fd(*index)?))).collect()
}

fn choose(wanted: &WantedTracker) -> Result<Tracker, ControlError> {
    match wanted {
        WantedTracker::Compare => Ok(Tracker::Compare),
        WantedTracker::Auto => Ok(if can_scan() { Tracker::Scan } else { Tracker::Compare }),
        WantedTracker::Scan if can_scan() => Ok(Tracker::Scan),
        WantedTracker::Scan => Err(ControlError::invalid("this kernel has no PAGEMAP_SCAN (6.7 or later)")),
    }
}

fn spawn(session: Arc<Session>, listener: OwnedFd) -> Result<(), ControlError> {
    if session.ahead.is_left() {
        let session = Arc::clone(&session);
        // While the VMM starts. It needs no end: the VM is served whether this gets done or not.
        std::thread::Builder::new()
            .name("prepare".into())
            .spawn(move || session.ahead.prepare(&session.source()))?;
    }
    std::thread::Builder::new().name("faults".into()).spawn(move || {
        if let Err(error) = serve(&session, listener) {
            session.report_failed(&format!("serving ended: {error}"), false);
        }
    })?;
    Ok(())
}
