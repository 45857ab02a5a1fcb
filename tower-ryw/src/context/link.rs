//! Links that are shared: what the recipient of a URL must be able to see.

use ryw_core::{Token, wire};

use super::RywContext;

impl RywContext {
    /// A token for somebody else: whoever brings it sees what this request's session could see so far, for as long as
    /// [`link_max_age`](crate::RywLayerBuilder::link_max_age) says. It names no session, so that nobody becomes one with it.
    /// `None` when there is nothing that others might not see by themselves.
    ///
    /// A write of this very request is in it once it is committed: ask for the token after that. Where what the session has
    /// written is unknown, a request at RYW or above finds it out first; at EVENTUAL nobody does, and the token says no more
    /// than that, which has a place in the [allowance](crate::RywLayerBuilder::unproven_reads) when it is followed.
    #[must_use]
    pub fn share_token(&self) -> Option<String> {
        let (marks, fresh) = self.so_far();
        if marks.is_none() {
            return None;
        }
        let issued_at = self.issued_at(&marks, fresh);
        let token = Token::shared(issued_at, marks);
        Some(token.seal(&self.0.config.keys, &self.0.identity.tenant))
    }

    /// The URL, absolute or relative, with the [`share_token`](Self::share_token) in its query: for a link in a message, or the
    /// URL that a webhook's receiver is going to ask. A token that it has already is replaced.
    ///
    /// The layer reads the parameter `ryw` wherever it comes, joins what it says, and leaves it in the URL. The answer is
    /// `Cache-Control: private`, and, unless the service says something else, its `Referrer-Policy` keeps the URL's query from
    /// other sites.
    ///
    /// ```
    /// use tower_ryw::RywContext;
    ///
    /// // … the note is saved …
    /// # async fn mail(_: String) {}
    /// async fn invite() {
    ///     let link = "https://notes.example/notes/7?print=1#top";
    ///     let link = RywContext::current().map_or(link.to_owned(), |ryw| ryw.share_link(link));
    ///     mail(format!("Have a look: {link}")).await;
    /// }
    /// ```
    #[must_use]
    pub fn share_link(&self, url: &str) -> String {
        with_token(url, self.share_token().as_deref())
    }
}

/// The URL with this token in its query, and no other.
fn with_token(url: &str, token: Option<&str>) -> String {
    let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let is_other =
        |parameter: &&str| !parameter.is_empty() && parameter.split('=').next() != Some(wire::LINK_PARAMETER);
    let others = query.into_iter().flat_map(|query| query.split('&')).filter(is_other).map(str::to_owned);
    let token = token.map(|token| format!("{}={token}", wire::LINK_PARAMETER));
    let mut link = path.to_owned();
    for (before, part) in std::iter::once('?').chain(std::iter::repeat('&')).zip(others.chain(token)) {
        link.push(before);
        link.push_str(&part);
    }
    if let Some(fragment) = fragment {
        link.push('#');
        link.push_str(fragment);
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_into_the_query_once() {
        for (url, with, without) in [
            ("/notes/7", "/notes/7?ryw=T", "/notes/7"),
            ("https://a.example", "https://a.example?ryw=T", "https://a.example"),
            ("/n?a=1&b", "/n?a=1&b&ryw=T", "/n?a=1&b"),
            ("/n?ryw=old&rywx=1#top?ryw=x", "/n?rywx=1&ryw=T#top?ryw=x", "/n?rywx=1#top?ryw=x"),
            ("/n?ryw=old", "/n?ryw=T", "/n"),
            ("/n?#top", "/n?ryw=T#top", "/n#top"),
        ] {
            assert_eq!(with_token(url, Some("T")), with, "{url}");
            assert_eq!(with_token(url, None), without, "{url}");
        }
    }
}
