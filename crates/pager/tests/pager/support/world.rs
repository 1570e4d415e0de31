//! A sandbox's memory over its life: stand-in and pager, the builds made so far, and a model that says what every
//! page must hold. Headers and diffs are judged by an implementation of their own: page by page.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use thaw_snapshot::{BuildId, format_build_id};

use super::files::{Dir, Place, header, listener, state};
use super::pager::{Pager, borrow};
use super::random::page;
use super::stand_in::{StandIn, Wiring};

const PAGE: usize = 4096;

pub struct World {
    pub dir: Dir,
    pub pager: Pager,
    pub vmm: StandIn,
    /// What memory holds.
    pub model: Vec<u8>,
    tracker: &'static str,
    all_events: bool,
    regions: Vec<usize>,
    places: Vec<Place>,
    builds: Vec<BuildId>,
    starts: u32,
    /// The pager's state file.
    state: String,
    /// What the keeper keeps of the handshake: userfaultfd and socket.
    kept: Vec<OwnedFd>,
    own: Option<OwnDiffs>,
    mapped: bool,
    /// The build that the pager has copied pages for while the VM ran.
    pre_dumped: Option<BuildId>,
}

/// Of a VMM that writes what changed into a file by itself.
#[derive(Default)]
struct OwnDiffs {
    changed: BTreeSet<usize>,
    /// The file of an earlier diff that was not committed.
    file: Option<PathBuf>,
}

/// What a restore knows of the pages that will be needed.
#[derive(Clone, Copy, Default)]
pub struct Hint<'a> {
    /// The file of a recorded working set, in the world's folder.
    pub record: Option<&'a str>,
    pub turn: Option<u64>,
    pub likely: bool,
}

impl<'a> Hint<'a> {
    pub fn recorded(name: &'a str) -> Self {
        Self { record: Some(name), ..Self::default() }
    }
}

/// The result of a dump.
pub struct Dumped {
    pub id: BuildId,
    pub result: Value,
    places: Vec<Place>,
}

impl World {
    pub fn boot(tracker: &'static str, regions: &[usize]) -> Self {
        Self::boot_wired(tracker, regions, false)
    }

    pub fn boot_wired(tracker: &'static str, regions: &[usize], all_events: bool) -> Self {
        let dir = Dir::new();
        let pages: usize = regions.iter().sum();
        let mut pager = Pager::spawn(&dir.path);
        let fds = [listener(&dir, 0), state(&dir, 0)];
        let request = start_request("boot", pages * PAGE, tracker);
        pager.ask(request, &borrow(&fds)).unwrap();
        let wiring = Wiring { restore: false, mapped: false, scan: tracker == "scan", all_events };
        let vmm = StandIn::start(wiring, regions, &dir.path.join("socket-0"), &dir.path.join("image"));
        let event = pager.shake_hands(vmm.child.id());
        assert_eq!((event.json["regions"].clone(), event.fds.len()), (json!(regions.len()), 2));
        let kept = event.fds;
        let (model, places) = (vec![0; pages * PAGE], vec![None; pages]);
        let (regions, builds) = (regions.to_vec(), Vec::new());
        Self {
            dir,
            pager,
            vmm,
            model,
            tracker,
            all_events,
            regions,
            places,
            builds,
            starts: 1,
            state: "state-0".to_owned(),
            kept,
            own: None,
            mapped: false,
            pre_dumped: None,
        }
    }

    /// With a VMM that tracks its writes by itself.
    pub fn boot_own(tracker: &'static str, regions: &[usize]) -> Self {
        Self { own: Some(OwnDiffs::default()), ..Self::boot(tracker, regions) }
    }

    /// With a VMM that is restored by mapping its builds. Nothing can be discarded then.
    pub fn boot_mapped(tracker: &'static str, regions: &[usize]) -> Self {
        Self { mapped: true, ..Self::boot(tracker, regions) }
    }

    pub fn pages(&self) -> usize {
        self.places.len()
    }

    pub fn write(&mut self, at: usize, seed: u64) {
        self.vmm.tell(&format!("write {at} {seed}"));
        self.note(at);
        self.model[at * PAGE..][..PAGE].copy_from_slice(&page(seed));
    }

    pub fn poke(&mut self, at: usize, word: usize, value: u64) {
        self.vmm.tell(&format!("poke {at} {word} {value}"));
        self.note(at);
        self.model[at * PAGE + word * 8..][..8].copy_from_slice(&value.to_le_bytes());
    }

    pub fn zero(&mut self, at: usize) {
        self.vmm.tell(&format!("zero {at}"));
        self.note(at);
        self.model[at * PAGE..][..PAGE].fill(0);
    }

    pub fn discard(&mut self, at: usize, count: usize) {
        if self.mapped {
            return;
        }
        self.vmm.tell(&format!("discard {at} {count}"));
        self.model[at * PAGE..][..count * PAGE].fill(0);
    }

    fn note(&mut self, at: usize) {
        if let Some(own) = &mut self.own {
            own.changed.insert(at);
        }
    }

    /// Every word of the VM's memory is the model's.
    pub fn check(&mut self) {
        std::fs::write(self.dir.path.join("image"), &self.model).unwrap();
        self.vmm.tell("check");
    }

    /// Dumps, and checks that parent and diff together are the model.
    pub fn dump(&mut self) -> Dumped {
        let ahead = self.pre_dumped.take();
        let id = ahead.unwrap_or_else(|| self.next_id());
        let result = match ahead {
            None => self.seal(&id, None).unwrap(),
            Some(_) => {
                let runs = [self.dir.create("runs")];
                self.pager.ask(json!({"op": "dump", "runs": 0}), &borrow(&runs)).unwrap()
            }
        };
        let places = self.apply(id, &result, ahead.is_some() || self.own.is_some());
        let dumped = Dumped { id, result, places };
        self.assert_image(&dumped);
        dumped
    }

    /// The bytes copied for the next dump while the VM runs.
    pub fn pre_dump(&mut self) -> Option<u64> {
        self.pre_dump_within(u64::MAX)
    }

    /// The same if there are no more than these.
    pub fn pre_dump_within(&mut self, room_bytes: u64) -> Option<u64> {
        if self.own.is_some() {
            return None;
        }
        let id = self.next_id();
        let memfile = [self.dir.create(&format!("{}.memfile", format_build_id(&id)))];
        let request = json!({"op": "pre_dump", "memfile": 0, "worth_bytes": 1, "room_bytes": room_bytes});
        let read_bytes = self.pager.ask(request, &borrow(&memfile)).unwrap()["read_bytes"].as_u64();
        self.pre_dumped = read_bytes.map(|_| id);
        read_bytes
    }

    /// A dump that runs out of disk space.
    pub fn fail_dump(&mut self) {
        self.pre_dumped = None;
        let full = File::options().write(true).open("/dev/full").unwrap();
        let id = self.next_id();
        match self.seal(&id, Some(full.into())) {
            Err(error) => assert_eq!(error["kind"], "exhausted", "{error}"),
            Ok(result) => assert_eq!(result["stored_bytes"], 0, "nothing was there to write"),
        }
    }

    /// `instead` of the file that is written to.
    fn seal(&mut self, id: &BuildId, instead: Option<OwnedFd>) -> Result<Value, Value> {
        let name = format!("{}.memfile", format_build_id(id));
        if self.own.is_none() {
            let memfile = instead.unwrap_or_else(|| self.dir.create(&name));
            let fds = [memfile, self.dir.create("runs")];
            return self.pager.ask(json!({"op": "dump", "memfile": 0, "runs": 1}), &borrow(&fds));
        }
        let kept = self.write_own(&name);
        let runs = instead.unwrap_or_else(|| self.dir.create("runs"));
        let fds = [self.dir.open(&name), runs];
        self.pager.ask(json!({"op": "collect", "diff": 0, "runs": 1, "kept": kept}), &borrow(&fds))
    }

    /// What the VMM does: writes its changes, over those of the last file if that was not committed.
    fn write_own(&mut self, name: &str) -> bool {
        let Some(own) = &mut self.own else { return false };
        let path = self.dir.path.join(name);
        let kept = own.file.replace(path.clone());
        match &kept {
            Some(earlier) => std::fs::rename(earlier, &path).unwrap(),
            None => File::create(&path).unwrap().set_len(self.model.len() as u64).unwrap(),
        }
        let file = File::options().write(true).open(path).unwrap();
        for at in std::mem::take(&mut own.changed) {
            file.write_all_at(&self.model[at * PAGE..][..PAGE], (at * PAGE) as u64).unwrap();
        }
        kept.is_some()
    }

    pub fn abort(&mut self) {
        self.pre_dumped = None;
        self.pager.ask(json!({"op": "abort"}), &[]).unwrap();
    }

    pub fn commit(&mut self, dumped: Dumped) {
        self.pre_dumped = None;
        self.places = dumped.places;
        self.builds.push(dumped.id);
        if let Some(own) = &mut self.own {
            own.file = None;
        }
        let (fds, builds) = self.source(0);
        let request = json!({"op": "commit", "header": 0, "builds": builds});
        self.pager.ask(request, &borrow(&fds)).unwrap();
    }

    /// Ends VMM and pager, and starts both from the last commit. What was not committed is gone.
    pub fn restore(&mut self) {
        self.restore_ahead(Hint::default());
    }

    /// As `restore`, with pages installed ahead.
    pub fn restore_ahead(&mut self, hint: Hint<'_>) {
        self.pre_dumped = None;
        self.vmm.child.kill().unwrap();
        self.vmm.child.wait().unwrap();
        self.own = self.own.as_ref().map(|_| OwnDiffs::default());
        self.pager.event("gone");
        let n = self.starts;
        self.starts += 1;
        self.pager = Pager::spawn(&self.dir.path);
        let (source, builds) = self.source(2);
        let mut fds = vec![listener(&self.dir, n), state(&self.dir, n)];
        self.state = format!("state-{n}");
        fds.extend(source);
        let mode = if self.mapped { "mapped" } else { "restore" };
        let mut request = start_request(mode, self.model.len(), self.tracker);
        request["header"] = json!(2);
        request["builds"] = builds;
        request["likely"] = json!(hint.likely);
        if let Some(name) = hint.record {
            request["workset"] = json!(fds.len());
            request["turn"] = json!(hint.turn);
            fds.push(File::open(self.dir.path.join(name)).unwrap().into());
        }
        let result = self.pager.ask(request, &borrow(&fds)).unwrap();
        assert_eq!(result["tracker"], self.tracker);
        let scan = self.tracker == "scan" && self.own.is_none();
        let wiring = Wiring { restore: true, mapped: self.mapped, scan, all_events: self.all_events };
        let socket = self.dir.path.join(format!("socket-{n}"));
        self.write_pieces();
        self.vmm = StandIn::start(wiring, &self.regions, &socket, &self.dir.path.join("image"));
        self.kept = self.pager.shake_hands(self.vmm.child.id()).fds;
        let files = self.read_builds();
        for (at, place) in self.places.iter().enumerate() {
            self.model[at * PAGE..][..PAGE].copy_from_slice(&content(&files, place));
        }
    }

    /// The pager dies, and while the VM reads all of its memory another one takes its place.
    pub fn take_over(&mut self) {
        std::fs::write(self.dir.path.join("image"), &self.model).unwrap();
        self.pager.kill();
        let n = self.starts;
        self.starts += 1;
        let mut request = start_request("take_over", self.model.len(), self.tracker);
        let mut fds = vec![listener(&self.dir, n), self.dir.open(&self.state)];
        request["uffd"] = json!(fds.len());
        request["socket"] = json!(fds.len() + 1);
        fds.append(&mut self.kept);
        if !self.builds.is_empty() {
            request["header"] = json!(fds.len());
            let (source, builds) = self.source(fds.len());
            request["builds"] = builds;
            fds.extend(source);
        }
        let (vmm, pager) = (&mut self.vmm, &mut self.pager);
        let pid = vmm.child.id();
        let dir = &self.dir.path;
        self.kept = std::thread::scope(|scope| {
            scope.spawn(move || vmm.tell("check"));
            *pager = Pager::spawn(dir);
            pager.ask(request, &borrow(&fds)).unwrap();
            pager.shake_hands(pid).fds
        });
    }

    /// What a VMM maps: each page that a build stores.
    fn write_pieces(&self) {
        let line = |(at, place): (usize, &Place)| {
            place.map(|(id, offset)| format!("{at} {offset} {}.memfile\n", format_build_id(&id)))
        };
        let lines: String = self.places.iter().enumerate().filter_map(line).collect();
        std::fs::write(self.dir.path.join("pieces"), lines).unwrap();
    }

    fn next_id(&self) -> BuildId {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let mut id = [7; 16];
        id[..4].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        id
    }

    /// The header and the builds it names, and the request's `builds` with indices from `first + 1` on.
    fn source(&self, first: usize) -> (Vec<OwnedFd>, Value) {
        let path = self.dir.path.join("header");
        std::fs::write(&path, header(&self.places, self.builds.len() as u64, &self.builds)).unwrap();
        let mut fds = vec![OwnedFd::from(File::open(path).unwrap())];
        let mut names = serde_json::Map::new();
        for id in self.builds.iter().filter(|id| self.places.iter().flatten().any(|place| place.0 == **id)) {
            let name = format_build_id(id);
            let file = File::open(self.dir.path.join(format!("{name}.memfile"))).unwrap();
            names.insert(name, json!(first + fds.len()));
            fds.push(file.into());
        }
        (fds, names.into())
    }

    fn read_builds(&self) -> Vec<(BuildId, Vec<u8>)> {
        let read = |id: &BuildId| {
            std::fs::read(self.dir.path.join(format!("{}.memfile", format_build_id(id)))).unwrap()
        };
        self.builds.iter().map(|id| (*id, read(id))).collect()
    }

    /// The places after a dump, from its runs file.
    fn apply(&self, id: BuildId, result: &Value, sparse: bool) -> Vec<Place> {
        let mut places = self.places.clone();
        let (mut end, mut stored, mut zero) = (0, 0, 0);
        for record in std::fs::read(self.dir.path.join("runs")).unwrap().as_chunks::<24>().0 {
            let word = |at: usize| u64::from_le_bytes(record.as_chunks::<8>().0[at]);
            let (offset, length, kind) = (word(0), word(1), word(2));
            assert!(offset >= end && length > 0, "runs ascend");
            end = offset + length;
            for at in (offset..end).step_by(PAGE) {
                places[at as usize / PAGE] = match kind {
                    1 => {
                        let place = if sparse { at } else { stored };
                        stored += PAGE as u64;
                        Some((id, place))
                    }
                    2 => {
                        zero += PAGE as u64;
                        assert!(
                            self.places[at as usize / PAGE].is_some(),
                            "zero fill over zero fill at {at:#x}"
                        );
                        None
                    }
                    other => panic!("kind {other}"),
                };
            }
        }
        assert_eq!(
            (result["stored_bytes"].as_u64(), result["zero_bytes"].as_u64()),
            (Some(stored), Some(zero))
        );
        places
    }

    fn assert_image(&self, dumped: &Dumped) {
        let mut files = self.read_builds();
        let path = self.dir.path.join(format!("{}.memfile", format_build_id(&dumped.id)));
        files.push((dumped.id, std::fs::read(path).unwrap()));
        for (at, place) in dumped.places.iter().enumerate() {
            let same = content(&files, place) == self.model[at * PAGE..][..PAGE];
            assert!(same, "page {at} is not in the build, which has it at {place:?}");
        }
    }
}

fn content(files: &[(BuildId, Vec<u8>)], place: &Place) -> Vec<u8> {
    let Some((id, at)) = place else { return vec![0; PAGE] };
    let (_, bytes) = files.iter().find(|(other, _)| other == id).unwrap();
    bytes[*at as usize..][..PAGE].to_vec()
}

fn start_request(mode: &str, memory_bytes: usize, tracker: &str) -> Value {
    json!({"op": "start", "mode": mode, "memory_bytes": memory_bytes, "tracker": tracker,
        "peer_uid": 0, "listen": 0, "state": 1})
}
