//! The client: a channel under a layer that carries the session.

use std::{error::Error, fs, io, path::Path, path::PathBuf, time::Duration};

use ryw_client::{Retry, RywClientLayer, RywClientService, SavedSession, Session};
use tonic::transport::{Channel, Endpoint};
use tower::Layer;

use crate::pb::{GetRequest, PutRequest, notes_client::NotesClient};

/// To connect, and for each call.
const TIMEOUT: Duration = Duration::from_secs(10);

type Client = NotesClient<RywClientService<Channel>>;

pub(crate) async fn put(
    service: String,
    file: Option<PathBuf>,
    name: String,
    text: String,
) -> Result<(), Box<dyn Error>> {
    let (mut client, session) = connect(service, file.as_deref()).await?;
    let answer = client.put(PutRequest { name, text }).await;
    // Whatever came of it: a write without an answer may have happened, and the session knows.
    keep(file.as_deref(), &session)?;
    answer?;
    Ok(())
}

pub(crate) async fn get(service: String, file: Option<PathBuf>, name: String) -> Result<(), Box<dyn Error>> {
    let (mut client, session) = connect(service, file.as_deref()).await?;
    let answer = client.get(GetRequest { name }).await;
    keep(file.as_deref(), &session)?;
    println!("{}", answer?.into_inner().text);
    Ok(())
}

async fn connect(service: String, file: Option<&Path>) -> Result<(Client, Session), Box<dyn Error>> {
    let channel = Endpoint::from_shared(service)?.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect().await?;
    let saved = file.map(load).transpose()?.unwrap_or_default();
    let session = Session::builder().restore(&saved).build()?;
    // A read that no node is fresh enough for is made again.
    let retry = Retry::new().reads("/notes.v1.Notes/Get");
    let layer = RywClientLayer::new(session.clone()).retry(retry);
    Ok((NotesClient::new(layer.layer(channel)), session))
}

fn load(file: &Path) -> Result<SavedSession, Box<dyn Error>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.trim_end().parse()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SavedSession::default()),
        Err(error) => Err(error.into()),
    }
}

/// All of it or nothing: a run that is cut short leaves the session as it was.
fn keep(file: Option<&Path>, session: &Session) -> io::Result<()> {
    let Some(file) = file else { return Ok(()) };
    let draft = file.with_extension("new");
    fs::write(&draft, format!("{}\n", session.save()))?;
    fs::rename(draft, file)
}
