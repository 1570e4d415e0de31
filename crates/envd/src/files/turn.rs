//! One upload of a file at a time: two of them never mix, and what is left of a broken one never comes after the next.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, Weak};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// What an upload takes hold of. The path before anything is opened, so that uploads go in the order in which they
/// came; then the file, which may have other names.
#[derive(Debug, Eq, Hash, PartialEq)]
pub enum Target {
    Path(PathBuf),
    File { device: u64, inode: u64 },
}

#[derive(Default)]
pub struct Turns(StdMutex<HashMap<Target, Weak<Mutex<()>>>>);

/// The next one's turn comes when this is dropped.
pub type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// First come, first served. Who takes a path and then its file never waits in a circle.
    pub async fn take(&self, target: Target) -> Turn {
        let queue = {
            let mut queues = self.0.lock().unwrap();
            queues.retain(|_, queue| queue.strong_count() > 0);
            let known = queues.get(&target).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let queue = Arc::default();
                queues.insert(target, Arc::downgrade(&queue));
                queue
            })
        };
        queue.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_come_in_order_and_leave_nothing() {
        let turns = Turns::default();
        let path = || Target::Path("/a".into());
        let first = turns.take(path()).await;
        let _other = turns.take(Target::File { device: 1, inode: 2 }).await;
        let mut second = Box::pin(turns.take(path()));
        let mut third = Box::pin(turns.take(path()));
        let mut left = Box::pin(turns.take(path()));
        tokio::select! {
            biased;
            _ = &mut second => panic!("too early"),
            _ = &mut third => panic!("too early"),
            _ = &mut left => panic!("too early"),
            () = std::future::ready(()) => {}
        }
        drop(left);
        drop(first);
        let turn = second.await;
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), &mut third).await.is_err());
        drop(turn);
        drop(third.await);
        drop(turns.take(Target::Path("/b".into())).await);
        assert_eq!(turns.0.lock().unwrap().len(), 2, "the one held and the last one");
    }
}
