//! The surviving state, from which a history gets its order.

use ryw_check::{Function, Operation, Value};
use tokio_postgres::NoTls;

use crate::{error::Error, history::Writer, service::FINAL};

/// Reads every key that was written to on every server, past the service, once nothing writes any more. A key whose writes are all
/// lost has no row, and is empty. Keys of the positive control go into its own history.
pub(crate) async fn read(nodes: &[(String, String)], history: &Writer, control: &Writer) -> Result<(), Error> {
    for (name, url) in nodes {
        let failed = |error| Error::new(format!("the final state of {name}"), error);
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
        let connection = tokio::spawn(connection);
        let mut missing = [history.keys(), control.keys()];
        for row in client.query(FINAL, &[]).await.map_err(failed)? {
            let key: String = row.try_get(0).map_err(failed)?;
            let list: Option<Vec<i64>> = row.try_get(1).map_err(failed)?;
            let value = match list {
                Some(list) => Value::List(list),
                None => Value::Register(row.try_get(2).map_err(failed)?),
            };
            let ver = row.try_get(3).map_err(failed)?;
            let is_control = key.starts_with("control-");
            missing[usize::from(is_control)].remove(&key);
            let writer = if is_control { control } else { history };
            writer.write(Operation { ver, ..shown(name, key, value) });
        }
        for (writer, missing) in [history, control].into_iter().zip(missing) {
            for (key, is_list) in missing {
                let nothing = if is_list { Value::List(Vec::new()) } else { Value::Register(None) };
                writer.write(shown(name, key, nothing));
            }
        }
        connection.abort();
    }
    Ok(())
}

fn shown(node: &str, key: String, value: Value) -> Operation {
    Operation { k: Some(key), val: Some(value), node: Some(node.to_owned()), ..Operation::new(Function::Final) }
}
