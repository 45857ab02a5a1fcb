//! The words and the wire of tower-ryw.
//!
//! Everything that servers, clients, stores and databases have to agree on, and nothing else: what a [`Position`]
//! is and how positions compare along a [`Lineage`]; what a session must be able to see ([`Marks`]); whom a mark is
//! about ([`Subject`], [`Tenant`]); how much was promised ([`Level`]); how all of that travels ([`Token`],
//! [`wire`]); and what keeps it between requests ([`MarkStore`]).
//!
//! There is no I/O and no clock in here: durations go in, the caller owns the time. The environment is read by
//! [`Keyring::from_env`] only.
//!
//! ```
//! use ryw_core::{ClusterId, Epoch, Lineage, Marks, Position, Relation};
//!
//! let cluster = ClusterId::new(7);
//! let wrote = Position::new(cluster, Epoch::new(1), 120);
//! let marks = Marks::at(wrote);
//!
//! let lineage = Lineage::new(cluster, Epoch::new(1));
//! let replica = Position::new(cluster, Epoch::new(1), 100);
//! assert_eq!(marks.relation_to(&lineage, replica), Relation::NotYet);
//!
//! // A failover at offset 110 cut the write off: a larger offset does not bring it back.
//! let lineage = lineage.promoted(Epoch::new(2), 110)?;
//! let replica = Position::new(cluster, Epoch::new(2), 500);
//! assert_eq!(marks.relation_to(&lineage, replica), Relation::Lost);
//! # Ok::<(), ryw_core::LineageError>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod bytes;
mod keys;
mod level;
mod lineage;
mod lost;
mod mark;
mod outcome;
mod position;
mod reason;
#[doc(hidden)]
pub mod seeded;
mod session;
mod store;
mod subject;
mod token;
pub mod wire;

pub use bytes::MalformedMarks;
pub use keys::{Key, KeyError, Keyring};
pub use level::{Level, ParseLevelError};
pub use lineage::{Lineage, LineageError, Relation};
pub use lost::{Acknowledged, Lost};
pub use mark::{Mark, Marks};
pub use outcome::Outcome;
pub use position::{ClusterId, Epoch, Position};
pub use reason::{ParseReasonError, Reason};
pub use session::SessionId;
pub use store::{Loaded, MarkStore, Stamp, StoreError, StoreErrorKind, StoreFuture, Unsettled, Update};
pub use subject::{NameError, Subject, SubjectKey, SubjectTag, Tenant};
pub use token::{Peeked, Token, TokenError};
