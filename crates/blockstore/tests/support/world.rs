//! A disk under test beside its model: what its bytes must be, and what may be left of them after a power cut.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use serde_json::{Value, json};

use super::header::{Blocks, BuildId, RunRecord, name, parse_runs};
use super::random::Random;
use super::{BLOCK, Directory, Server, allocated, punch, read};

/// What a file was at the last flush: its bytes and its allocated blocks.
struct Synced {
    bytes: Vec<u8>,
    allocated: Vec<u64>,
}

pub struct World {
    pub server: Server,
    pub directory: Directory,
    /// The disk's bytes as acknowledged.
    pub content: Vec<u8>,
    /// The writable layers' numbers: the top's first, then the rotated one's.
    layers: Vec<u32>,
    next_layer: u32,
    rotated: Option<(Vec<RunRecord>, Vec<u8>)>,
    committed: Blocks,
    builds: Vec<(BuildId, String)>,
    synced: HashMap<String, Synced>,
    /// Hashes of what a block has been since the last flush, the flushed content first.
    history: HashMap<u64, Vec<u64>>,
}

impl World {
    /// A disk of `blocks` over a build of two thirds of them, of which about half are stored.
    pub fn new(blocks: u64, random: &mut Random) -> Self {
        let directory = Directory::new();
        let build = directory.create("base");
        let mut content = vec![0; blocks as usize * BLOCK];
        let mut committed = Blocks::default();
        let mut stored = false;
        for index in 0..blocks * 2 / 3 {
            stored ^= random.chance(20);
            committed.0.push(stored.then_some(([1; 16], index * BLOCK as u64)));
            if stored {
                let bytes = random.bytes(BLOCK);
                build.write_all_at(&bytes, index * BLOCK as u64).unwrap();
                content[index as usize * BLOCK..][..BLOCK].copy_from_slice(&bytes);
            }
        }
        build.set_len(blocks * BLOCK as u64).unwrap();
        let server = Server::spawn(&directory).0;
        let mut world = Self {
            server,
            directory,
            content,
            layers: Vec::new(),
            next_layer: 0,
            rotated: None,
            committed,
            builds: vec![([1; 16], "base".into())],
            synced: HashMap::new(),
            history: HashMap::new(),
        };
        let top = world.new_layer();
        world.layers.push(top);
        world.mark_synced();
        world.restart();
        world
    }

    pub fn size(&self) -> u64 {
        self.content.len() as u64
    }

    pub fn is_rotated(&self) -> bool {
        self.rotated.is_some()
    }

    /// kill -9, then a new process on the same files.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server = self.serve(&self.directory, &self.layers);
    }

    /// A second disk from the last committed header must have what the first had at its rotate.
    pub fn check_clone(&mut self, expected: &[u8]) {
        let directory = Directory::new();
        let layer = self.new_layer();
        let server = self.serve(&directory, &[layer]);
        compare(&read(&server.file(true), 0, expected.len()), expected);
        super::write(&server.file(true), 0, &[0xee; BLOCK]);
    }

    pub fn change(&mut self, offset: u64, bytes: &[u8]) {
        let last = (offset + bytes.len() as u64 - 1) / BLOCK as u64;
        for block in offset / BLOCK as u64..=last {
            let old = self.hash(block);
            self.history.entry(block).or_insert_with(|| vec![old]);
        }
        self.content[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        for block in offset / BLOCK as u64..=last {
            let new = self.hash(block);
            self.history.get_mut(&block).unwrap().push(new);
        }
    }

    pub fn check(&self, offset: u64, length: usize, direct: bool) {
        let found = read(&self.server.file(direct), offset, length);
        compare(&found, &self.content[offset as usize..][..length]);
    }

    pub fn check_all(&self) {
        self.check(0, self.content.len(), true);
    }

    pub fn flush(&mut self, by_file: bool) {
        if by_file {
            self.server.file(false).sync_data().unwrap();
        } else {
            self.server.ask(json!({"op": "flush"}), &[]).unwrap();
        }
        self.mark_synced();
    }

    pub fn rotate(&mut self) {
        let layer = self.new_layer();
        let runs = self.directory.create("runs");
        let request = json!({"op": "rotate", "top": 0, "zeros": 1, "runs": 2});
        let (top, zeros) = (self.file("top", layer), self.file("zeros", layer));
        let sizes = self.server.ask(request, &[&top, &zeros, &runs]).unwrap();
        self.layers.insert(0, layer);
        let runs = parse_runs(&std::fs::read(self.directory.path("runs")).unwrap());
        self.check_runs(&runs, &sizes);
        self.rotated = Some((runs, self.content.clone()));
    }

    pub fn commit(&mut self) {
        self.flush(false);
        let (runs, content) = self.rotated.take().unwrap();
        let layer = self.layers.pop().unwrap();
        let stored: Vec<u64> = runs.iter().filter(|run| run.kind == 1).flat_map(|run| run.blocks()).collect();
        assert_eq!(
            allocated(&self.file("top", layer)),
            stored,
            "the layer's file has its stored blocks and no other"
        );
        let build: BuildId = [layer as u8 + 10; 16];
        self.committed = self.committed.apply(&runs, build, self.content.len() / BLOCK);
        self.builds.push((build, format!("top{layer}")));
        let (mut request, files) = self.base_request(0);
        request["op"] = json!("commit");
        let files: Vec<&dyn AsFd> = files.iter().map(|file| file as &dyn AsFd).collect();
        self.server.ask(request, &files).unwrap();
        self.check_clone(&content);
    }

    pub fn abort(&mut self) {
        self.server.ask(json!({"op": "abort"}), &[]).unwrap();
        if self.rotated.take().is_some() {
            self.layers.remove(0);
        }
        self.mark_synced();
    }

    /// kill -9, after which every block and every tombstone byte of the writable layers is what it was at the last flush or what
    /// it is now, at random. Each block must then be something that it was since that flush.
    pub fn cut_power(&mut self, random: &mut Random) {
        self.server.kill();
        for layer in self.layers.clone() {
            let file = self.file("top", layer);
            let old = &self.synced[&format!("top{layer}")];
            let now = allocated(&file);
            for block in 0..self.size() / BLOCK as u64 {
                let (was, is) = (old.allocated.contains(&block), now.contains(&block));
                if (was || is) && random.chance(50) {
                    let offset = block * BLOCK as u64;
                    match was {
                        true => super::write(&file, offset, &old.bytes[offset as usize..][..BLOCK]),
                        false => punch(&file, offset, BLOCK as u64),
                    }
                }
            }
            let file = self.file("zeros", layer);
            let old = &self.synced[&format!("zeros{layer}")].bytes;
            for at in 0..file.metadata().unwrap().len() {
                if random.chance(50) {
                    file.write_all_at(&[old.get(at as usize).copied().unwrap_or(0)], at).unwrap();
                }
            }
        }
        self.restart();
        let found = read(&self.server.file(true), 0, self.content.len());
        for (block, bytes) in found.chunks(BLOCK).enumerate() {
            let allowed = self.history.get(&(block as u64)).cloned().unwrap_or(vec![self.hash(block as u64)]);
            let at = allowed.iter().position(|hash| *hash == hash_of(bytes));
            assert!(at.is_some(), "block {block} is none of the {} contents it had", allowed.len());
        }
        self.content = found;
        self.mark_synced();
    }

    /// Layering the runs over the committed builds, without the block store, must give the disk's content.
    fn check_runs(&self, runs: &[RunRecord], sizes: &Value) {
        let mut kinds = vec![0; self.content.len() / BLOCK];
        let mut before: Option<&RunRecord> = None;
        for run in runs {
            if let Some(before) = before {
                let end = before.offset + before.length;
                assert!(
                    run.offset > end || (run.offset == end && run.kind != before.kind),
                    "{before:?} {run:?}"
                );
            }
            run.blocks().for_each(|block| kinds[block as usize] = run.kind);
            before = Some(run);
        }
        let bytes = |wanted| kinds.iter().filter(|kind| **kind == wanted).count() * BLOCK;
        assert_eq!(*sizes, json!({"stored_bytes": bytes(1), "zero_bytes": bytes(2)}));
        let top = self.file("top", self.layers[1]);
        let builds: HashMap<BuildId, File> =
            self.builds.iter().map(|(build, name)| (*build, self.directory.open(name))).collect();
        for (block, kind) in kinds.iter().enumerate() {
            let parent = self.committed.0.get(block).copied().flatten();
            let found = match (kind, parent) {
                (1, _) => read(&top, (block * BLOCK) as u64, BLOCK),
                (0, Some((build, storage))) => read(&builds[&build], storage, BLOCK),
                _ => vec![0; BLOCK],
            };
            assert!(*kind != 2 || parent.is_some(), "zero fill over zero fill at {block}");
            assert!(found == self.content[block * BLOCK..][..BLOCK], "block {block} of kind {kind}");
        }
    }

    fn serve(&self, directory: &Directory, layers: &[u32]) -> Server {
        let (mut server, fuse) = Server::spawn(directory);
        let mut files: Vec<File> = vec![fuse.into()];
        for layer in layers {
            files.extend([self.file("top", *layer), self.file("zeros", *layer)]);
        }
        let (mut request, base) = self.base_request(files.len());
        files.extend(base);
        for (key, value) in
            [("op", json!("start")), ("fuse", json!(0)), ("top", json!(1)), ("zeros", json!(2))]
        {
            request[key] = value;
        }
        request["size_bytes"] = json!(self.size());
        if layers.len() > 1 {
            request["uncommitted"] = json!({"top": 3, "zeros": 4});
        }
        let files: Vec<&dyn AsFd> = files.iter().map(|file| file as &dyn AsFd).collect();
        server.ask(request, &files).unwrap();
        server
    }

    fn base_request(&self, first: usize) -> (Value, Vec<File>) {
        let mut files = vec![self.committed.write(&self.directory, "header")];
        let mut builds = json!({});
        for (build, file) in &self.builds {
            builds[name(build)] = json!(first + files.len());
            files.push(self.directory.open(file));
        }
        (json!({"header": first, "builds": builds}), files)
    }

    fn new_layer(&mut self) -> u32 {
        let layer = self.next_layer;
        self.next_layer += 1;
        for kind in ["top", "zeros"] {
            let file = format!("{kind}{layer}");
            self.directory.create(&file);
            self.synced.insert(file, Synced { bytes: Vec::new(), allocated: Vec::new() });
        }
        layer
    }

    fn file(&self, kind: &str, layer: u32) -> File {
        self.directory.open(&format!("{kind}{layer}"))
    }

    fn mark_synced(&mut self) {
        self.history.clear();
        for layer in &self.layers {
            for kind in ["top", "zeros"] {
                let file = self.file(kind, *layer);
                let bytes = read(&file, 0, file.metadata().unwrap().len() as usize);
                let synced = Synced { bytes, allocated: allocated(&file) };
                self.synced.insert(format!("{kind}{layer}"), synced);
            }
        }
    }

    fn hash(&self, block: u64) -> u64 {
        hash_of(&self.content[block as usize * BLOCK..][..BLOCK])
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn compare(found: &[u8], expected: &[u8]) {
    if found != expected {
        let at = found.iter().zip(expected).position(|(left, right)| left != right);
        panic!("differs at byte {at:?} of {} (found {} bytes)", expected.len(), found.len());
    }
}
