//! Users and groups, read from `/etc/passwd` and `/etc/group` (passwd(5), group(5)): a static binary has no NSS.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::process::{Gid, Uid};

#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    /// The primary group and those that list the user.
    pub groups: Vec<Gid>,
    pub home: PathBuf,
}

/// The user that was looked up last, and the files as they were then: a guest that wakes up has it at hand.
pub struct Users {
    passwd: PathBuf,
    group: PathBuf,
    last: Mutex<Option<(User, [Stamp; 2])>>,
}

impl Default for Users {
    fn default() -> Users {
        Users { passwd: "/etc/passwd".into(), group: "/etc/group".into(), last: Mutex::default() }
    }
}

impl Users {
    /// None when nobody has the name. Users come and go while the agent runs.
    pub fn find(&self, name: &str) -> Option<User> {
        let stamps = [Stamp::of(&self.passwd), Stamp::of(&self.group)];
        let mut last = self.last.lock().unwrap();
        if let Some((user, seen)) = &*last
            && user.name == name
            && *seen == stamps
        {
            return Some(user.clone());
        }
        let passwd = fs::read_to_string(&self.passwd).ok()?;
        let group = fs::read_to_string(&self.group).unwrap_or_default();
        let user = parse(name, &passwd, &group)?;
        // One that is being changed may change again and show the same time.
        let is_settled = stamps.iter().all(|stamp| stamp.is_settled());
        *last = is_settled.then(|| (user.clone(), stamps));
        Some(user)
    }
}

/// By what a file that changed is told; all zero for none.
#[derive(Clone, Copy, Default, PartialEq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

const SETTLED_SEC: i64 = 2;

impl Stamp {
    fn of(path: &Path) -> Stamp {
        let found = fs::metadata(path).map(|found| Stamp {
            inode: (found.dev(), found.ino()),
            size: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        found.unwrap_or_default()
    }

    fn is_settled(&self) -> bool {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        (self.changed.0 + SETTLED_SEC) < now
    }
}

fn parse(name: &str, passwd: &str, group: &str) -> Option<User> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let fields: Vec<&str> = line.split(':').collect();
    let [_, _, uid, gid, _, home, ..] = fields[..] else { return None };
    let gid = Gid::from_raw(gid.parse().ok()?);
    let mut groups = vec![gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, id, members, ..] = fields[..] else { continue };
        let Ok(id) = id.parse().map(Gid::from_raw) else { continue };
        if members.split(',').any(|member| member == name) && !groups.contains(&id) {
            groups.push(id);
        }
    }
    let home = if home.starts_with('/') { home } else { "/" };
    Some(User { name: name.into(), uid: Uid::from_raw(uid.parse().ok()?), gid, groups, home: home.into() })
}

/// Names of users and groups by number.
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    pub fn read() -> Names {
        Names { users: numbered("/etc/passwd"), groups: numbered("/etc/group") }
    }

    /// The number itself where nobody has it.
    pub fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

/// Both files have the name first and the number third; the first line of a number counts.
fn numbered(path: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(1).map(str::parse)) {
            names.entry(number).or_insert_with(|| name.to_string());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\nodd:x\n";
    const GROUPS: &str = "root:x:0:\nuser:x:1000:user\nsudo:x:27:other,user\nbad\nadm:x:4:users\n";

    #[test]
    fn a_user_has_the_groups_that_list_it() {
        let user = parse("user", LINES, GROUPS).unwrap();
        assert_eq!(user.groups, [Gid::from_raw(1000), Gid::from_raw(27)]);
        assert_eq!(user.home, PathBuf::from("/home/user"));
        assert_eq!(parse("root", LINES, GROUPS).unwrap().groups, [Gid::from_raw(0)]);
    }

    #[test]
    fn broken_lines_are_nobody() {
        assert_eq!(parse("odd", LINES, GROUPS), None);
        assert_eq!(parse("nobody", LINES, GROUPS), None);
        assert_eq!(parse("", LINES, GROUPS), None);
    }

    #[test]
    fn a_user_that_changes_is_seen_at_once() {
        let folder = std::env::temp_dir().join(format!("thaw-envd-users-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (passwd, group) = (folder.join("passwd"), folder.join("group"));
        fs::write(&passwd, LINES).unwrap();
        fs::write(&group, GROUPS).unwrap();
        let users = Users { passwd: passwd.clone(), group: group.clone(), last: Mutex::default() };
        let groups = || users.find("user").map(|user| user.groups.len());
        assert_eq!(groups(), Some(2));
        assert!(users.last.lock().unwrap().is_none(), "the files are too new");
        std::thread::sleep(std::time::Duration::from_secs(SETTLED_SEC as u64 + 2));
        assert_eq!(groups(), Some(2));
        assert!(users.last.lock().unwrap().is_some());
        assert_eq!((groups(), users.find("nobody")), (Some(2), None));
        fs::write(&group, GROUPS.replace("other,user", "other,used")).unwrap();
        assert_eq!(groups(), Some(1));
        fs::write(&passwd, LINES.replace("user:", "used:")).unwrap();
        assert_eq!(groups(), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
