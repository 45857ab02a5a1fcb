use std::fs;

use super::{ServerError, ServerErrorKind};

/// The user that runs the servers in place of root, which PostgreSQL refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    /// `None` if the caller is not root and can run the servers itself.
    pub(super) fn for_servers() -> Result<Option<Self>, ServerError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd =
            fs::read_to_string("/etc/passwd").map_err(|error| ServerError::io("cannot read /etc/passwd", error))?;
        pick(&passwd).map(Some).ok_or_else(|| {
            ServerError::new(
                ServerErrorKind::MissingUser,
                "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` \
                 to run it as: create one, or be another user than root",
            )
        })
    }
}

fn pick(passwd: &str) -> Option<User> {
    ["postgres", "nobody"].iter().find_map(|wanted| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| name == wanted)?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(User { name: name.to_owned(), uid, gid })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_is_taken_before_nobody() {
        let nobody = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:::";
        let postgres = "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/sh";
        for (passwd, expected) in [
            (String::new(), None),
            ("postgresql:x:7:8:::".into(), None),
            ("nobody:x".into(), None),
            (nobody.into(), Some(("nobody", 65534, 65533))),
            (format!("{nobody}\n{postgres}"), Some(("postgres", 101, 104))),
        ] {
            let expected = expected.map(|(name, uid, gid): (&str, _, _)| User { name: name.into(), uid, gid });
            assert_eq!(pick(&passwd), expected, "{passwd:?}");
        }
    }
}
