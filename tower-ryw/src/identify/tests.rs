use http::Request;
use ryw_core::{ClusterId, Epoch, Key, Keyring, Position};

use super::*;
use crate::{CookiePolicy, RywLayer};

mod cookies;

const HOUR: u32 = 3600;

fn at(offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(1), offset)
}

fn key(id: u8) -> Key {
    Key::new(id, &[id; 32]).unwrap()
}

fn acme() -> Tenant {
    "acme".parse().unwrap()
}

/// The time stands still: what was issued just now has an age of less than a second.
struct Fixture {
    config: Config,
    now: u32,
}

impl Fixture {
    fn new() -> Self {
        let layer = RywLayer::builder()
            .cookie(CookiePolicy::InsecureForDevelopment)
            .event_ids(true)
            .signing_key(key(1))
            .tenant(|head| head.headers.get("tenant")?.to_str().ok()?.parse().ok())
            .build()
            .unwrap();
        let config = Arc::into_inner(layer.config).unwrap();
        let now = u32::try_from(config.clock.now().as_secs()).unwrap();
        Self { config, now }
    }

    fn session(name: &str) -> SubjectKey {
        key(1).session(&Tenant::default(), &name.parse().unwrap())
    }

    fn token_at(&self, issued_at: u32, session: &str, marks: Marks) -> String {
        let token = Token { session: Self::session(session), issued_at, marks };
        token.seal(&self.config.keys, &Tenant::default())
    }

    /// One that was issued just now.
    fn token(&self, session: &str, marks: Marks) -> String {
        self.token_at(self.now, session, marks)
    }

    fn offset(&self, offset: u64) -> String {
        self.token("me", Marks::at(at(offset)))
    }

    /// A token of a tenant that another service has signed.
    fn foreign(&self, offset: u64) -> String {
        let token = Token { session: Self::session("me"), issued_at: self.now, marks: Marks::at(at(offset)) };
        token.seal(&Keyring::new(key(9)), &Tenant::default())
    }

    fn caller(&self, uri: &str, headers: &[(&str, &str)]) -> Caller {
        let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        let request = request.body(()).unwrap();
        let (present, named) = Present::of(request.headers());
        identify(&self.config, (&request).into(), present, named).map_err(|_| "refused").unwrap()
    }

    fn read_from(&self, uri: &str, headers: &[(&str, &str)]) -> Identity {
        match self.caller(uri, headers) {
            Caller::Somebody(identity) => identity,
            Caller::Nobody { .. } => panic!("{uri} {headers:?}"),
        }
    }

    fn read(&self, headers: &[(&str, &str)]) -> Identity {
        self.read_from("/", headers)
    }

    fn cookies(&self, cookies: &[(String, String)]) -> Identity {
        let pairs: Vec<_> = cookies.iter().map(|(name, token)| format!("{name}={token}")).collect();
        self.read(&[("cookie", &pairs.join("; "))])
    }

    fn slot(&self, session: &str) -> CookieName {
        let own = CookieName::of(&self.config, &Tenant::default()).unwrap();
        own.with(Slot::of(&Self::session(session)))
    }
}

fn offsets(marks: &Marks) -> Vec<u64> {
    marks.positions().iter().map(|position| position.offset()).collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_brings_nothing_is_nobody() {
    let fixture = Fixture::new();
    for uri in ["/", "/?", "/?a=1&b", "/?rywx=1", "/?ryw"] {
        assert!(matches!(fixture.caller(uri, &[("host", "a")]), Caller::Nobody { .. }), "{uri}");
    }
    // What is called like ours and is not.
    for (name, value) in [("cookie", "theme=dark"), ("baggage", "trace=1;ryw=2,rywx=1,ryw"), ("last-event-id", "41;")] {
        let read = fixture.read(&[(name, value)]);
        assert!(read.passthrough().is_some() && !read.has_session && !read.cookies.any, "{name}: {read:?}");
    }
}

/// Each of several tokens is read, whatever separates them, and the first one's session is who asks.
#[tokio::test(start_paused = true)]
async fn fields_carry_tokens() {
    let fixture = Fixture::new();
    let [a, b] = [fixture.token("a", Marks::at(at(5))), fixture.token("b", Marks::at(at(7)))];
    for headers in [
        &[("ryw-token", format!("{a}, {b}"))][..],
        &[("ryw-token", a.clone()), ("ryw-token", b.clone())],
        &[("baggage", format!("trace=1,ryw={a}.{b};p=1"))],
        &[("baggage", format!(" ryw = {a} ;p=1 , ryw={b}"))],
        &[("last-event-id", format!("41;{a}")), ("baggage", format!("ryw={b}"))],
        &[("last-event-id", format!("4;1; {a} ")), ("ryw-token", b.clone())],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let read = fixture.read(&headers);
        assert_eq!((offsets(&read.carried.marks), &read.carried.hint), (vec![7], &Marks::none()), "{headers:?}");
        assert_eq!((read.keys.len(), read.has_session, read.carried.by_link), (1, true, false), "{headers:?}");
        assert!(read.carried.foreign.is_empty() && !read.cookies.any);
    }
    assert_eq!(fixture.read(&[("ryw-token", &format!("{a}, {b}"))]).keys[0], Fixture::session("a"));
    // A session that is named goes before those of tokens.
    let named = fixture.read(&[("x-session-id", "me"), ("ryw-token", &a)]);
    assert_eq!(named.keys[..], [Fixture::session("me")]);
}

#[tokio::test(start_paused = true)]
async fn events_have_tokens_only_where_that_is_asked_for() {
    let mut fixture = Fixture::new();
    let id = format!("41;{}", fixture.offset(5));
    assert_eq!(offsets(&fixture.read(&[("last-event-id", &id)]).carried.marks), [5]);
    fixture.config.event_ids = false;
    assert!(fixture.read(&[("last-event-id", &id)]).carried.is_none());
}

#[tokio::test(start_paused = true)]
async fn more_tokens_than_are_looked_at_make_the_marks_doubtful() {
    let fixture = Fixture::new();
    let tokens = |n: u64| (1..=n).map(|n| fixture.offset(n)).collect::<Vec<_>>().join(",");
    let most = wire::MAX_TOKENS as u64;
    for (text, newest, is_doubtful) in [
        (tokens(most - 1), most - 1, false),
        (tokens(most), most, false),
        (tokens(most + 1), most, true),
        // The same once more says the same.
        (format!("{0},{0},{0}", tokens(most)), most, false),
    ] {
        let read = fixture.read(&[("ryw-token", &text)]);
        assert_eq!(offsets(&read.carried.marks), [newest]);
        assert_eq!(read.carried.hint.is_unknown(), is_doubtful, "{newest}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_believed_up_to_its_age() {
    let mut fixture = Fixture::new();
    let old = fixture.token_at(fixture.now - HOUR, "me", Marks::at(at(5)));
    // To the nanosecond, as the clock stands still.
    let age = fixture.config.clock.now() - Duration::from_secs((fixture.now - HOUR).into());
    let moment = Duration::from_nanos(1);
    for (limit, believed, doubted) in [(age + moment, &[5][..], &[][..]), (age, &[5], &[]), (age - moment, &[], &[5])] {
        fixture.config.token_max_age = limit;
        let read = fixture.read(&[("ryw-token", &old)]).carried;
        assert_eq!((offsets(&read.marks), offsets(&read.hint)), (believed.to_vec(), doubted.to_vec()), "{limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_write_keeps_the_time_of_the_youngest_token() {
    let fixture = Fixture::new();
    let older = fixture.token_at(fixture.now - 1, "a", Marks::pending());
    let younger = fixture.token_at(fixture.now, "b", Marks::at(at(5)));
    for text in [format!("{older},{younger}"), format!("{younger},{older}")] {
        let read = fixture.read(&[("ryw-token", &text)]).carried;
        assert!(read.marks.is_pending() && read.pending_since == fixture.now - 1, "{read:?}");
    }
    // Its window is over: nobody knows where it landed, which replicas have by now as there are no positions.
    let over = fixture.token_at(fixture.now - HOUR, "a", Marks::pending());
    let read = fixture.read(&[("ryw-token", &over)]).carried;
    assert!(read.marks.is_none() && read.pending_since == 0, "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_believed_is_heeded_and_handed_on_to_whom_it_may_concern() {
    let fixture = Fixture::new();
    let theirs = fixture.foreign(9);
    // Whole bytes are cut off.
    let cut = theirs[..theirs.len() / 4 * 4].to_owned();
    for (token, doubted, is_unknown, is_handed_on) in [
        (&*theirs, &[9][..], false, true),
        // The signature does not verify, and the rest says nothing.
        (&*cut, &[], true, true),
        ("not a token!", &[], true, false),
        // The word for a token that is missing.
        (wire::UNKNOWN_TOKEN, &[], true, false),
    ] {
        let read = fixture.read(&[("ryw-token", token)]);
        let Carried { marks, hint, foreign, .. } = &read.carried;
        assert!(marks.is_none() && read.keys.is_empty() && !read.has_session, "{token}: {read:?}");
        assert_eq!((offsets(hint), hint.is_unknown()), (doubted.to_vec(), is_unknown), "{token}");
        let expected: &[&str] = if is_handed_on { &[token] } else { &[] };
        assert_eq!(foreign, expected, "{token}");
    }
    // In whichever fields it comes, it is handed on once, and what a browser brings not at all.
    let both = fixture.read(&[("ryw-token", &theirs), ("baggage", &format!("ryw={theirs}"))]);
    assert_eq!(both.carried.foreign, [theirs.as_str()]);
    let other = fixture.foreign(8);
    let both = fixture.read(&[("ryw-token", &theirs), ("ryw-token", &other)]);
    assert_eq!(both.carried.foreign, [theirs.as_str(), other.as_str()]);
    let cookies = fixture.read(&[("cookie", &format!("ryw={theirs};ryw-01234567={other}"))]);
    assert_eq!(cookies.carried.foreign, [wire::UNKNOWN_TOKEN]);
    let link = fixture.read_from(&format!("/?ryw={theirs}"), &[]);
    assert_eq!(link.carried.foreign, [wire::UNKNOWN_TOKEN]);
    assert!(link.carried.by_link && link.terms.level == Level::ReadYourWrites);
    // Of another tenant it is another service's too.
    let elsewhere = fixture.read(&[("tenant", "acme"), ("ryw-token", &fixture.offset(5))]);
    assert_eq!((elsewhere.carried.foreign.len(), offsets(&elsewhere.carried.hint)), (1, vec![5]));
}

#[tokio::test(start_paused = true)]
async fn a_link_shows_what_it_says_and_names_nobody() {
    let fixture = Fixture::new();
    let shared = |marks| Token::shared(fixture.now, marks).seal(&fixture.config.keys, &Tenant::default());
    for token in [shared(Marks::at(at(5))), fixture.offset(5)] {
        let read = fixture.read_from(&format!("/?a=1&ryw={token}&b"), &[("x-consistency-level", "EVENTUAL")]);
        assert_eq!(offsets(&read.carried.marks), [5]);
        assert!(read.keys.is_empty() && read.carried.by_link && read.carried.hint.is_none(), "{read:?}");
        assert_eq!(read.terms.level, Level::ReadYourWrites, "whoever shares a link means that it is seen");
    }
    // Several are joined; one that is not believed raises nothing.
    let two = format!("/?ryw={}&ryw={}", shared(Marks::at(at(5))), fixture.foreign(7));
    let read = fixture.read_from(&two, &[]);
    assert_eq!((offsets(&read.carried.marks), offsets(&read.carried.hint)), (vec![5], vec![7]));
    let order = format!("/?ryw={}&ryw={}", fixture.foreign(7), shared(Marks::at(at(5))));
    for (uri, level) in [
        (two, Level::ReadYourWrites),
        (order, Level::ReadYourWrites),
        (format!("/?ryw={}", fixture.foreign(7)), Level::Eventual),
    ] {
        let mut fixture = Fixture::new();
        fixture.config.policy.minimum = Level::Eventual;
        fixture.config.policy.default = Level::Eventual;
        assert_eq!(fixture.read_from(&uri, &[]).terms.level, level, "{uri}");
    }
    // What it does not know is found out by each of those who follow it, or by nobody; a client's own token asks for it.
    let mut unknown = Marks::unknown();
    unknown.join(&Marks::at(at(5)));
    let link = fixture.read_from(&format!("/?ryw={}", shared(unknown.clone())), &[]).carried;
    assert_eq!((link.marks, link.hint), (Marks::at(at(5)), Marks::unknown()));
    let field = fixture.read(&[("ryw-token", &shared(unknown.clone()))]);
    assert!(field.carried.marks == unknown && field.carried.hint.is_none() && field.keys.is_empty(), "{field:?}");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_too_old_says_nothing() {
    let mut fixture = Fixture::new();
    let since = fixture.now - HOUR;
    let age = fixture.config.clock.now() - Duration::from_secs(since.into());
    let shared = Token::shared(since, Marks::at(at(5))).seal(&fixture.config.keys, &Tenant::default());
    let own = fixture.token_at(since, "me", Marks::at(at(5)));
    let link = format!("/?ryw={shared}");
    for (limit, is_over) in [(age, false), (age - Duration::from_nanos(1), true)] {
        fixture.config.link_max_age = limit;
        let expected: &[u64] = if is_over { &[] } else { &[5] };
        for (level, is_doubtful) in [("RYW", false), ("SESSION", is_over), ("CAUSAL", is_over)] {
            for (uri, headers) in [
                (&*link, &[("x-consistency-level", level)][..]),
                // Whoever has followed it may have it as a token.
                ("/", &[("x-consistency-level", level), ("ryw-token", &shared)]),
            ] {
                let read = fixture.read_from(uri, headers).carried;
                assert_eq!((offsets(&read.marks), read.hint.is_unknown()), (expected.to_vec(), is_doubtful), "{level}");
                assert_eq!(read.by_link, uri != "/" && !is_over, "{level}");
            }
        }
        // A session's own token lives for longer.
        assert_eq!(offsets(&fixture.read(&[("ryw-token", &own)]).carried.marks), [5]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_read_from_its_field() {
    let fixture = Fixture::new();
    let read = |value| fixture.read(&[("x-session-id", "me"), ("ryw-lost", value)]).acknowledges;
    assert_eq!(read("ack;epoch=2"), Some(Acknowledged::UpTo(Epoch::new(2))));
    assert_eq!((read("ack"), read("?1;epoch=2;was=1")), (Some(Acknowledged::Told), None));
}
