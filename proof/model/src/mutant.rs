//! Wrong protocols: each is a mistake that somebody has made.

use crate::{Action, Bounds};

/// One guard less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// Positions of different epochs are compared by their offsets.
    ComparesNumbers,
    /// Of several epochs' marks the largest number is kept.
    MergesByNumber,
    /// A session that the store does not know has written nothing.
    MissIsFresh,
    /// An entry that expires is as good as none.
    Expires,
    /// A replica that has applied what the new primary does not have is used, as if it were at the fork.
    NoFence,
    /// The mark of a read is taken before it reads.
    MarksBeforeReading,
    /// The node is checked when it is chosen, and not when it serves.
    ChecksOnce,
    /// The last mark that is stored wins.
    LastWins,
    /// Clients carry nothing, and the store is lost along with a write.
    ServerOnly,
    /// An acknowledged loss resets the session to the sample.
    ResetClobbers,
    /// A session that was served by a replica is taken to be over with its marks.
    Unsticks,
    /// The mark of a write is read before it commits.
    CapturesBefore,
    /// What a replica has received counts as applied.
    Receives,
    /// What the primary has written counts as visible there.
    PrimaryIsFresh,
    /// An acknowledgement takes more out of the marks than was told.
    ForgetsNewer,
    /// A message is sent without the token.
    ForgetsToForward,
    /// An entry that is made after a loss of the store is believed to be all there was.
    LatePut,
    /// The position of a write is that of whoever is the primary when it is asked for.
    AnyWitness,
    /// Reads leave no mark.
    ForgetsReads,
    /// A write whose client gives up leaves no mark.
    CancelLeavesNothing,
    /// The mark of such a write does not name the epoch, so an instance that has not heard of it asks the old primary.
    NamesNoEpoch,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::ComparesNumbers,
        Self::MergesByNumber,
        Self::MissIsFresh,
        Self::Expires,
        Self::NoFence,
        Self::MarksBeforeReading,
        Self::ChecksOnce,
        Self::LastWins,
        Self::ServerOnly,
        Self::ResetClobbers,
        Self::Unsticks,
        Self::CapturesBefore,
        Self::Receives,
        Self::PrimaryIsFresh,
        Self::ForgetsNewer,
        Self::ForgetsToForward,
        Self::LatePut,
        Self::AnyWitness,
        Self::ForgetsReads,
        Self::CancelLeavesNothing,
        Self::NamesNoEpoch,
    ];

    /// A world that is large enough to find it.
    pub fn bounds(self) -> Bounds {
        let tabs = Bounds::new().clients(1, 2);
        match self {
            Self::MissIsFresh => Bounds::new().requests(1, 1).losses(1, 0),
            Self::Expires => Bounds::new().requests(1, 1).losses(0, 1),
            Self::LatePut => tabs.requests(2, 1).losses(1, 0),
            Self::CapturesBefore | Self::Receives => Bounds::new().requests(1, 1),
            Self::CancelLeavesNothing => {
                let mut bounds = Bounds::new().requests(1, 1);
                bounds.left.cancels = 1;
                bounds
            }
            Self::NamesNoEpoch => {
                let mut bounds = Bounds { instances: 2, ..tabs.requests(1, 1).failovers(1, 0) };
                bounds.left.cancels = 1;
                bounds
            }
            Self::ComparesNumbers => Bounds::new().requests(1, 2).clients(2, 1).failovers(1, 0),
            Self::NoFence => Bounds { nodes: 3, ..Bounds::new().requests(2, 1).clients(2, 1).failovers(1, 0) },
            Self::ChecksOnce => Bounds::new().requests(2, 1).failovers(0, 1),
            Self::ServerOnly => Bounds { tokens: true, ..Bounds::new().requests(1, 1).failovers(1, 0).losses(1, 0) },
            Self::AnyWitness => Bounds::new().requests(1, 2).failovers(1, 0),
            Self::ForgetsReads => Bounds { nodes: 3, ..Bounds::new().requests(2, 1).clients(2, 1) },
            Self::MarksBeforeReading => Bounds { nodes: 3, ..Bounds::new().requests(2, 1).clients(2, 1) },
            Self::PrimaryIsFresh => Bounds { synchronous: true, ..Bounds::new().requests(2, 1).clients(2, 1) },
            Self::ForgetsToForward => {
                let mut bounds = Bounds { tokens: true, ..Bounds::new().requests(1, 1).clients(2, 1) };
                bounds.left.messages = 1;
                bounds
            }
            Self::MergesByNumber => tabs.requests(2, 2).failovers(1, 0),
            Self::LastWins | Self::Unsticks => tabs.requests(2, 1),
            Self::ResetClobbers | Self::ForgetsNewer => tabs.requests(3, 2).failovers(1, 1),
        }
    }

    /// What has happened before the search begins, where everything that could happen instead would take too long.
    pub(crate) const fn start(self) -> &'static [Action] {
        use Action::{Acknowledge, Answer, Decide, Promote, Read, Report, Sample, Serve, Write};
        match self {
            // A write is lost and told; another one is on its way to the new primary.
            Self::ResetClobbers | Self::ForgetsNewer => &[
                Write(0, 0),
                Decide(0, 0, 0),
                Serve(0, 0),
                Promote(1, true),
                Report(0, 0),
                Report(0, 1),
                Write(0, 1),
                Decide(0, 1, 0),
                Answer(0, 0),
                Read(0, 0),
                Decide(0, 0, 0),
                Serve(0, 0),
                Answer(0, 0),
                Acknowledge(0, 0),
                Sample(0, 0),
            ],
            _ => &[],
        }
    }
}
