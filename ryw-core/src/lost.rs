//! A loss, how it is told, and how whoever was told says so.

use http::HeaderValue;

use crate::Epoch;

/// An acknowledged write that did not survive a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lost {
    /// The epoch that is current now.
    pub epoch: Epoch,
    /// The epoch that the write had been made in.
    pub was: Epoch,
}

/// What a request says that the session knows to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Acknowledged {
    /// `ack`: what it has been told, as far as the server can tell that.
    Told,
    /// `ack;epoch=2`: what was gone when that epoch began, and not what is lost after it.
    UpTo(Epoch),
}

impl Lost {
    /// The value of `Ryw-Lost`: a structured field (RFC 9651), true with parameters.
    ///
    /// ```
    /// use ryw_core::{Epoch, Lost};
    /// let lost = Lost { epoch: Epoch::new(2), was: Epoch::new(1) };
    /// assert_eq!(lost.header_value(), "?1;epoch=2;was=1");
    /// assert_eq!(Lost::from_header(&lost.header_value()), Some(lost));
    /// ```
    #[must_use]
    pub fn header_value(self) -> HeaderValue {
        let Self { epoch, was } = self;
        HeaderValue::try_from(format!("?1;epoch={epoch};was={was}")).unwrap_or_else(|_| HeaderValue::from_static("?1"))
    }

    /// Reads the value of `Ryw-Lost`; `None` when it tells of no loss, or not in these words. Other parameters are left
    /// alone.
    #[must_use]
    pub fn from_header(value: &HeaderValue) -> Option<Self> {
        let mut parts = value.to_str().ok()?.split(';').map(str::trim);
        parts.next().filter(|item| *item == "?1")?;
        let (mut epoch, mut was) = (None, None);
        for part in parts {
            let number = |digits: &str| digits.parse().ok().map(Epoch::new);
            match part.split_once('=') {
                Some(("epoch", digits)) => epoch = number(digits),
                Some(("was", digits)) => was = number(digits),
                _ => {}
            }
        }
        Some(Self { epoch: epoch?, was: was? })
    }
}

impl Acknowledged {
    /// The value of `Ryw-Lost` in a request.
    ///
    /// ```
    /// use ryw_core::{Acknowledged, Epoch};
    /// let known = Acknowledged::UpTo(Epoch::new(2));
    /// assert_eq!(known.header_value(), "ack;epoch=2");
    /// assert_eq!(Acknowledged::from_header(&known.header_value()), Some(known));
    /// ```
    #[must_use]
    pub fn header_value(self) -> HeaderValue {
        let told = HeaderValue::from_static("ack");
        match self {
            Self::Told => told,
            Self::UpTo(epoch) => HeaderValue::try_from(format!("ack;epoch={epoch}")).unwrap_or(told),
        }
    }

    /// Reads the value of `Ryw-Lost` in a request; `None` when it acknowledges nothing, or not in these words. Other parameters
    /// are left alone; an epoch that is none, or two of them, are no acknowledgement: the loss is told again.
    #[must_use]
    pub fn from_header(value: &HeaderValue) -> Option<Self> {
        let mut parts = value.to_str().ok()?.split(';').map(str::trim);
        parts.next().filter(|item| item.eq_ignore_ascii_case("ack"))?;
        let mut epochs = parts.filter_map(|part| match part.split_once('=') {
            Some(("epoch", digits)) => Some(digits),
            _ => (part == "epoch").then_some(""),
        });
        match (epochs.next(), epochs.next()) {
            (None, _) => Some(Self::Told),
            (Some(digits), None) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().map(Epoch::new).map(Self::UpTo)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_reads_back() {
        for (epoch, was, text) in [(2, 1, "?1;epoch=2;was=1"), (u32::MAX, 0, "?1;epoch=4294967295;was=0")] {
            let lost = Lost { epoch: Epoch::new(epoch), was: Epoch::new(was) };
            assert_eq!(lost.header_value(), text);
            for same in [text.to_owned(), format!("?1; was={was} ;by=me; epoch={epoch}")] {
                assert_eq!(Lost::from_header(&HeaderValue::try_from(same).unwrap()), Some(lost), "{text}");
            }
            let known = Acknowledged::UpTo(lost.epoch);
            assert_eq!(known.header_value(), format!("ack;epoch={epoch}"));
            assert_eq!(Acknowledged::from_header(&known.header_value()), Some(known));
        }
        assert_eq!(Acknowledged::Told.header_value(), "ack");
    }

    #[test]
    fn a_loss_in_other_words_is_none() {
        for value in
            ["", "?0", "?1", "ack", "?1;epoch=2", "?1;epoch=x;was=1", "?1;epoch=-2;was=1", "?1;epoch=99999999999;was=1"]
        {
            assert_eq!(Lost::from_header(&HeaderValue::from_static(value)), None, "{value}");
        }
    }

    #[test]
    fn an_acknowledgement_names_its_loss_or_is_the_bare_word() {
        let read = |value: &'static str| Acknowledged::from_header(&HeaderValue::from_static(value));
        let up_to = |epoch| Some(Acknowledged::UpTo(Epoch::new(epoch)));
        for value in ["ack", "ACK", "ack;", "ack ; by=me"] {
            assert_eq!(read(value), Some(Acknowledged::Told), "{value}");
        }
        for (value, epoch) in [("ack;epoch=2", 2), ("Ack; epoch=0", 0), ("ack;was=1;epoch=4294967295", u32::MAX)] {
            assert_eq!(read(value), up_to(epoch), "{value}");
        }
        for value in [
            "",
            "?1",
            "nack",
            "acknowledged",
            "?1;epoch=2;was=1",
            "ack,ack",
            "ack;epoch",
            "ack;epoch=",
            "ack;epoch=x",
            "ack;epoch=-2",
            "ack;epoch=+2",
            "ack;epoch=4294967296",
            "ack;epoch=2;epoch=3",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }
}
