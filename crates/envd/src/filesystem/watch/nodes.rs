//! Which directory of the watched tree a watch descriptor stands for.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// A watch descriptor of inotify.
pub type Watched = i32;

struct Node {
    /// None: the root.
    parent: Option<Watched>,
    name: OsString,
    /// How often the queue ran empty since it was moved away; see `settle`.
    away: Option<u32>,
}

#[derive(Default)]
pub struct Nodes {
    nodes: HashMap<Watched, Node>,
    children: HashMap<(Watched, OsString), Watched>,
}

impl Nodes {
    pub fn insert_root(&mut self, watched: Watched) {
        self.nodes.insert(watched, Node { parent: None, name: OsString::new(), away: None });
    }

    pub fn contains(&self, watched: Watched) -> bool {
        self.nodes.contains_key(&watched)
    }

    pub fn is_root(&self, watched: Watched) -> bool {
        self.nodes.get(&watched).is_some_and(|node| node.parent.is_none())
    }

    /// Says where the directory is, now.
    pub fn place(&mut self, watched: Watched, parent: Watched, name: OsString) {
        if let Some(before) = self.nodes.remove(&watched) {
            self.forget_name(watched, &before);
        }
        self.children.insert((parent, name.clone()), watched);
        self.nodes.insert(watched, Node { parent: Some(parent), name, away: None });
    }

    pub fn remove(&mut self, watched: Watched) {
        if let Some(node) = self.nodes.remove(&watched) {
            self.forget_name(watched, &node);
        }
    }

    fn forget_name(&mut self, watched: Watched, node: &Node) {
        let Some(parent) = node.parent else { return };
        let key = (parent, node.name.clone());
        if self.children.get(&key) == Some(&watched) {
            self.children.remove(&key);
        }
    }

    /// The path below the root. None: unknown, or moved out of the tree.
    pub fn path(&self, watched: Watched) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut node = self.nodes.get(&watched)?;
        while let Some(parent) = node.parent {
            if node.away.is_some_and(|drained| drained > 0) || names.len() > self.nodes.len() {
                return None;
            }
            names.push(&node.name);
            node = self.nodes.get(&parent)?;
        }
        Some(names.into_iter().rev().collect())
    }

    /// The directory was moved, within the tree or out of it: the other half of the news follows, if any.
    pub fn move_away(&mut self, parent: Watched, name: OsString) {
        if let Some(watched) = self.children.get(&(parent, name))
            && let Some(node) = self.nodes.get_mut(watched)
        {
            node.away = Some(0);
        }
    }

    /// The queue is empty. Both halves of a move are not queued as one: who is still away at the next time has left,
    /// and all below with it.
    pub fn settle(&mut self) -> Vec<Watched> {
        let mut left = Vec::new();
        for (watched, node) in &mut self.nodes {
            match &mut node.away {
                None => {}
                Some(0) => node.away = Some(1),
                Some(_) => left.push(*watched),
            }
        }
        if left.is_empty() {
            return left;
        }
        self.nodes.keys().copied().filter(|watched| self.is_below(*watched, &left)).collect()
    }

    fn is_below(&self, watched: Watched, above: &[Watched]) -> bool {
        let mut at = Some(watched);
        for _ in 0..=self.nodes.len() {
            match at {
                None => return false,
                Some(watched) if above.contains(&watched) => return true,
                Some(watched) => at = self.nodes.get(&watched).and_then(|node| node.parent),
            }
        }
        false
    }
}
