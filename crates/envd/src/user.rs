//! Users and groups, read from `/etc/passwd` and `/etc/group` (passwd(5), group(5)): a static binary has no NSS.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

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

impl User {
    /// None when nobody has the name. Read anew each time: users come and go while the agent runs.
    pub fn find(name: &str) -> Option<User> {
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        parse(name, &passwd, &group)
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

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\nodd:x\n";
    const GROUP: &str = "root:x:0:\nuser:x:1000:user\nsudo:x:27:other,user\nbad\nadm:x:4:users\n";

    #[test]
    fn a_user_has_the_groups_that_list_it() {
        let user = parse("user", PASSWD, GROUP).unwrap();
        assert_eq!(user.groups, [Gid::from_raw(1000), Gid::from_raw(27)]);
        assert_eq!(user.home, PathBuf::from("/home/user"));
        assert_eq!(parse("root", PASSWD, GROUP).unwrap().groups, [Gid::from_raw(0)]);
    }

    #[test]
    fn broken_lines_are_nobody() {
        assert_eq!(parse("odd", PASSWD, GROUP), None);
        assert_eq!(parse("nobody", PASSWD, GROUP), None);
        assert_eq!(parse("", PASSWD, GROUP), None);
    }
}
