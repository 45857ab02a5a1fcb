//! The surviving state, from which a history gets its order.

use ryw_check::{Function, Operation, Value};
use tokio_postgres::NoTls;

use crate::{error::Error, history::Writer, service::FINAL};

/// Reads every key on every server, past the service, once nothing writes any more. Keys of the positive control go into its
/// own history.
pub(crate) async fn read(nodes: &[(String, String)], history: &Writer, control: &Writer) -> Result<(), Error> {
    for (name, url) in nodes {
        let failed = |error| Error::new(format!("the final state of {name}"), error);
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
        let connection = tokio::spawn(connection);
        for row in client.query(FINAL, &[]).await.map_err(failed)? {
            let key: String = row.try_get(0).map_err(failed)?;
            let list: Option<Vec<i64>> = row.try_get(1).map_err(failed)?;
            let value = match list {
                Some(list) => Value::List(list),
                None => Value::Register(row.try_get(2).map_err(failed)?),
            };
            let writer = if key.starts_with("control-") { control } else { history };
            let ver = row.try_get(3).map_err(failed)?;
            let line = Operation {
                k: Some(key),
                val: Some(value),
                ver,
                node: Some(name.clone()),
                ..Operation::new(Function::Final)
            };
            writer.write(line);
        }
        connection.abort();
    }
    Ok(())
}
