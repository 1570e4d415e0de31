//! The memory images that pages come from: one build, one build cut into many entries, many builds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thaw_snapshot::{BuildId, format_build_id};

use crate::files::{Dir, Place, header};
use crate::random::Random;
use crate::working_set::MEMORY_PAGES;

const PAGE: u64 = 4096;
const WINDOW_PAGES: u64 = 16;
const CHUNK_PAGES: u64 = 256;

/// A header and its builds' data files, by id.
pub struct Image {
    pub header: PathBuf,
    pub builds: Vec<(BuildId, PathBuf)>,
}

/// Writes one build's memory: no page of it is zero, and all of it stays in the page cache.
pub fn write_memory(dir: &Dir) -> PathBuf {
    let path = dir.path.join("memory");
    let file = File::create(&path).unwrap();
    let mut random = Random(1);
    for chunk in 0..MEMORY_PAGES / CHUNK_PAGES {
        let words = (0..CHUNK_PAGES * PAGE / 8).flat_map(|_| random.next().to_le_bytes());
        file.write_all_at(&words.collect::<Vec<u8>>(), chunk * CHUNK_PAGES * PAGE).unwrap();
    }
    path
}

impl Image {
    /// One entry.
    pub fn whole(dir: &Dir, memory: &Path) -> Self {
        Self::laid_out(dir, "whole", memory, |page| page)
    }

    /// So many entries, all but the last of one page.
    pub fn split(dir: &Dir, memory: &Path, entries: u64) -> Self {
        Self::laid_out(dir, "split", memory, |page| if page < entries - 1 { page ^ 1 } else { page })
    }

    /// An entry for each window, all of one build.
    pub fn of_one(dir: &Dir, memory: &Path) -> Self {
        Self::laid_out(dir, "of-one", memory, |page| page ^ WINDOW_PAGES)
    }

    fn laid_out(dir: &Dir, name: &str, memory: &Path, at: impl Fn(u64) -> u64) -> Self {
        let id = build_id(1);
        let places: Vec<Place> = (0..MEMORY_PAGES).map(|page| Some((id, at(page) * PAGE))).collect();
        Self::of(dir, name, &places, vec![(id, memory.to_path_buf())])
    }

    /// An entry for each window, of so many builds in turn.
    pub fn of_many(dir: &Dir, memory: &Path, builds: u64) -> Self {
        let from = File::open(memory).unwrap();
        let paths = (0..builds).map(|build| (build_id(build + 1), dir.path.join(format!("build-{build}"))));
        let builds: Vec<(BuildId, PathBuf)> = paths.collect();
        let files: Vec<File> = builds.iter().map(|(_, path)| File::create(path).unwrap()).collect();
        let mut window = vec![0; (WINDOW_PAGES * PAGE) as usize];
        for at in (0..MEMORY_PAGES * PAGE).step_by(window.len()) {
            from.read_exact_at(&mut window, at).unwrap();
            files[owner(at / PAGE, files.len())].write_all_at(&window, at).unwrap();
        }
        files.iter().for_each(|file| file.set_len(MEMORY_PAGES * PAGE).unwrap());
        let place = |page: u64| Some((builds[owner(page, builds.len())].0, page * PAGE));
        let places: Vec<Place> = (0..MEMORY_PAGES).map(place).collect();
        Self::of(dir, "of-many", &places, builds)
    }

    fn of(dir: &Dir, name: &str, places: &[Place], builds: Vec<(BuildId, PathBuf)>) -> Self {
        let ids: Vec<BuildId> = builds.iter().map(|(id, _)| *id).collect();
        let path = dir.path.join(format!("{name}.header"));
        std::fs::write(&path, header(places, ids.len() as u64 - 1, &ids)).unwrap();
        Self { header: path, builds }
    }

    /// What a start request names, with indices from `first` on.
    pub fn names(&self, first: usize) -> serde_json::Value {
        let name = |(at, (id, _)): (usize, &(BuildId, PathBuf))| (format_build_id(id), (first + at).into());
        serde_json::Value::Object(self.builds.iter().enumerate().map(name).collect())
    }
}

fn owner(page: u64, builds: usize) -> usize {
    (page / WINDOW_PAGES) as usize % builds
}

fn build_id(n: u64) -> BuildId {
    let mut id = [9; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    id
}
