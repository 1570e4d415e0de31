//! What a path in a request means.

use std::path::{Component, Path, PathBuf};

use crate::user::User;

/// Empty is the default working directory, else the user's home; `~` and relative paths start at the home;
/// absolute ones stand. The error is for the client.
pub fn resolve(path: &str, user: &User, default_workdir: Option<&str>) -> Result<PathBuf, String> {
    if path.contains('\0') {
        return Err("the path has a zero byte".into());
    }
    if path.is_empty() {
        return match default_workdir {
            Some(workdir) if !workdir.is_empty() => resolve(workdir, user, None),
            _ => Ok(user.home.clone()),
        };
    }
    if let Some(rest) = path.strip_prefix('~') {
        if !rest.is_empty() && !rest.starts_with('/') {
            return Err(format!("cannot expand the home of another user: {path}"));
        }
        return Ok(normalise(&user.home, rest.trim_start_matches('/')));
    }
    match path.starts_with('/') {
        true => Ok(path.into()),
        false => Ok(normalise(&user.home, path)),
    }
}

/// Joins and removes `.` and `..` by the letter, without looking at the disk.
fn normalise(base: &Path, path: &str) -> PathBuf {
    let mut result = PathBuf::from("/");
    for component in base.join(path).components() {
        match component {
            Component::ParentDir => {
                result.pop();
            }
            Component::Normal(name) => result.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use rustix::process::{Gid, Uid};

    use super::*;

    #[test]
    fn paths_start_at_the_home_unless_absolute() {
        let (uid, gid) = (Uid::from_raw(1), Gid::from_raw(1));
        let user = User { name: "u".into(), uid, gid, groups: vec![gid], home: "/home/u".into() };
        let resolve =
            |path, workdir| resolve(path, &user, workdir).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(resolve("", None).unwrap(), "/home/u");
        assert_eq!(resolve("", Some("/srv")).unwrap(), "/srv");
        assert_eq!(resolve("", Some("~/x")).unwrap(), "/home/u/x");
        assert_eq!(resolve("~", None).unwrap(), "/home/u");
        assert_eq!(resolve("~/a/./b/../c", None).unwrap(), "/home/u/a/c");
        assert_eq!(resolve("a.txt", Some("/srv")).unwrap(), "/home/u/a.txt");
        assert_eq!(resolve("../../../x", None).unwrap(), "/x");
        assert_eq!(resolve("/a/../b", None).unwrap(), "/a/../b");
        assert!(resolve("~root/x", None).is_err());
        assert!(resolve("a\0b", None).is_err());
    }
}
