//! A loss, and how it is told.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_in_other_words_is_none() {
        for value in
            ["", "?0", "?1", "ack", "?1;epoch=2", "?1;epoch=x;was=1", "?1;epoch=-2;was=1", "?1;epoch=99999999999;was=1"]
        {
            assert_eq!(Lost::from_header(&HeaderValue::from_static(value)), None, "{value}");
        }
    }
}
