//! What a connection string gives access to, and what is wrong with it.

use tokio_postgres::{Client, Error};

/// What the role may do on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// The same on all nodes of a cluster.
    pub(crate) database: u32,
    /// It sees what other roles' backends do.
    sees_others: bool,
    /// It can read where timelines have forked.
    reads_histories: bool,
}

impl Access {
    pub(crate) async fn of(client: &Client) -> Result<Self, Error> {
        const ACCESS: &str = "
            select (select oid from pg_database where datname = current_database()),
                   pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
                   has_function_privilege('pg_read_file(text, bigint, bigint, boolean)', 'execute') or exists (
                       select from pg_proc join pg_namespace on pg_namespace.oid = pronamespace
                       where nspname = 'ryw' and proname = 'timeline_history'
                         and has_schema_privilege(pg_namespace.oid, 'usage')
                         and has_function_privilege(pg_proc.oid, 'execute'))";
        let row = client.query_one(ACCESS, &[]).await?;
        Ok(Self { database: row.try_get(0)?, sees_others: row.try_get(1)?, reads_histories: row.try_get(2)? })
    }

    /// What the role may do on both nodes.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            database: self.database,
            sees_others: self.sees_others && other.sees_others,
            reads_histories: self.reads_histories && other.reads_histories,
        }
    }

    /// Says what is missing while there is time to change it.
    pub(crate) fn warn(self) {
        if !self.sees_others {
            tracing::warn!(
                "the role does not see what others do, so writes that were cut short and commits that wait for synchronous \
                 standbys are taken for worse than they are: GRANT pg_read_all_stats"
            );
        }
        if !self.reads_histories {
            tracing::warn!(
                "the role can't read where timelines fork, so a failover that loses writes will not be told: install \
                 ryw_postgres::HELPERS and GRANT EXECUTE ON FUNCTION ryw.timeline_history(text)"
            );
        }
    }
}

/// A parameter of a connection string that is not understood. Only its name is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlParameter {
    #[error("sslmode can be disable, prefer or require here: how certificates are checked is up to Builder::tls")]
    SslMode,
    #[error(
        "no parameter {0} is known here: for encryption there is Builder::tls, for sqlx's own SqlxOptions::connect"
    )]
    Unknown(String),
}

impl UrlParameter {
    /// Why the parameters after the question mark were refused.
    pub(crate) fn refused(url: &str) -> Option<Self> {
        const KNOWN: [&str; 19] = [
            "user",
            "password",
            "dbname",
            "options",
            "application_name",
            "sslmode",
            "sslnegotiation",
            "host",
            "hostaddr",
            "port",
            "connect_timeout",
            "tcp_user_timeout",
            "keepalives",
            "keepalives_idle",
            "keepalives_interval",
            "keepalives_retries",
            "target_session_attrs",
            "channel_binding",
            "load_balance_hosts",
        ];
        let (_, parameters) = url.split_once('?')?;
        parameters.split('&').filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
            let is_name =
                name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-".contains(&byte));
            match name {
                "sslmode" if !["disable", "prefer", "require"].contains(&value) => Some(Self::SslMode),
                _ if is_name && !KNOWN.contains(&name) => Some(Self::Unknown(name.to_owned())),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_named_and_no_value_is() {
        let refused = |url: &str| UrlParameter::refused(url).map(|parameter| parameter.to_string());
        assert!(
            refused("postgres://u:secret@h/d?sslmode=verify-full").is_some_and(|text| text.contains("Builder::tls"))
        );
        let text = refused("postgres://u:secret@h/d?sslmode=require&sslrootcert=/secret").unwrap_or_default();
        assert!(text.contains("sslrootcert") && !text.contains("secret"), "{text}");
        for fine in ["postgres://u:secret@h/d?sslmode=require", "postgres://u:secret@h/d", "host=h password=a?b=c"] {
            assert_eq!(refused(fine).filter(|text| text.contains("secret")), None);
        }
        // A password that was not encoded is not taken for a parameter.
        assert_eq!(refused("postgres://u:pa?SS=word@h/d"), None);
    }
}
