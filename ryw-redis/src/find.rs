//! Where a server is found.

use redis::Client;

use crate::{
    address::Address,
    error::{ConnectError, ConnectErrorKind},
    sentinel::Sentinels,
};

/// Where a server is found.
#[derive(Debug)]
pub(crate) enum Find {
    At(Client),
    Sentinel(Sentinels),
    InCluster(Client, Address),
}

impl Find {
    pub(crate) async fn client(&self) -> Result<(Client, Option<Address>), ConnectError> {
        match self {
            Self::At(client) => Ok((client.clone(), None)),
            Self::InCluster(client, address) => Ok((client.clone(), Some(address.clone()))),
            Self::Sentinel(sentinels) => {
                let address = sentinels.master().await?;
                Ok((sentinels.template.client(&address)?, Some(address)))
            }
        }
    }

    /// Whether it is still the one that is meant.
    pub(crate) async fn check(&self, address: Option<&Address>) -> Result<(), ConnectError> {
        match self {
            Self::Sentinel(sentinels) if Some(&sentinels.master().await?) != address => {
                Err(ConnectError::new(ConnectErrorKind::NotAMaster))
            }
            _ => Ok(()),
        }
    }
}
