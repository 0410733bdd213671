//! The operating system's user that PostgreSQL runs as: not root, because initdb and postgres refuse it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

/// Tried in this order. `postgres` comes with every packaged server; `nobody` exists everywhere.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// A user id and its main group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    pub fn current_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    pub fn is_root() -> bool {
        Self::current_uid() == 0
    }

    /// Whom PostgreSQL must run as: `None` is "as we do".
    pub fn for_postgres() -> anyhow::Result<Option<Self>> {
        if !Self::is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        CANDIDATES
            .iter()
            .find_map(|name| find(&passwd, name))
            .map(Some)
            .context("PostgreSQL does not run as root, and there is neither a user postgres nor nobody: run the demo as an ordinary user")
    }

    /// Whether every directory of the path lets this user through.
    pub fn can_reach(&self, path: &Path) -> bool {
        path.ancestors()
            .all(|dir| fs::metadata(dir).is_ok_and(|meta| self.may_search(meta.mode(), meta.uid(), meta.gid())))
    }

    fn may_search(&self, mode: u32, uid: u32, gid: u32) -> bool {
        let bit = if uid == self.uid {
            0o100
        } else if gid == self.gid {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }
}

fn find(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (found && uid != 0).then_some(User { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_gives_user_and_group() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nbroken\npostgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(find(passwd, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(find(passwd, "nobody"), None);
        assert_eq!(find(passwd, "root"), None, "root is what we must get away from");
    }

    #[test]
    fn permissions_are_read_as_the_kernel_does() {
        let user = User { uid: 5, gid: 6 };
        assert!(user.may_search(0o711, 0, 0));
        assert!(!user.may_search(0o700, 0, 0));
        assert!(user.may_search(0o700, 5, 0));
        assert!(!user.may_search(0o701, 0, 6), "the group's bits count for a member, not the others'");
    }
}
