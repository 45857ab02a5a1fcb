//! What a browser keeps of its sessions.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_browser_goes_on_as_every_session_that_was_begun_for_it() {
    let fixture = Fixture::new();
    let own = fixture.token("own", Marks::at(at(5)));
    let [first, second] = ["first", "second"].map(|name| (fixture.slot(name).to_string(), name));
    let birth = |(slot, name): &(String, &str), offset| (slot.clone(), fixture.token(name, Marks::at(at(offset))));
    let read = fixture.cookies(&[birth(&first, 9), ("ryw".into(), own.clone()), birth(&second, 7)]);
    assert_eq!(read.keys[..], ["own", "first", "second"].map(Fixture::session));
    assert_eq!(offsets(&read.carried.marks), [9]);
    let slots = ["first", "second"].map(|name| (Slot::of(&Fixture::session(name)), Fixture::session(name)));
    let Cookies { any, dead, crowded, kept, unsettled, removed } = read.cookies;
    assert_eq!((any, dead, crowded, unsettled, removed.len()), (true, false, false, false, 0));
    assert_eq!(kept[..], slots);
    // A session that has just begun is in two, and one that has gone on is there with two tokens.
    let slot = fixture.slot("own").to_string();
    for token in [own.clone(), fixture.token("own", Marks::at(at(6)))] {
        let read = fixture.cookies(&[("ryw".into(), own.clone()), (slot.clone(), token), birth(&first, 9)]);
        assert_eq!(read.keys[..], ["own", "first"].map(Fixture::session));
        assert_eq!(read.cookies.kept.len(), 2);
    }
    // None of them: cookies are off, or are another's.
    assert!(!fixture.cookies(&[("theme".into(), "dark".into())]).cookies.any);
    let mut off = Fixture::new();
    off.config.cookie = CookiePolicy::Off;
    assert!(!off.cookies(&[("ryw".into(), own.clone())]).cookies.any);
    // A link's token in a cookie names nobody.
    let shared = Token::shared(fixture.now, Marks::at(at(5))).seal(&fixture.config.keys, &Tenant::default());
    let read = fixture.cookies(&[("ryw".into(), shared)]);
    assert!(read.keys.is_empty() && read.cookies.any && !read.cookies.dead && offsets(&read.carried.marks) == [5]);
}

#[tokio::test(start_paused = true)]
async fn a_birth_that_has_to_be_found_out_anew_each_time_is_unsettled() {
    let fixture = Fixture::new();
    let slot = fixture.slot("first").to_string();
    let old = fixture.now - 25 * HOUR;
    for (token, is_unsettled) in [
        (fixture.token("first", Marks::at(at(5))), false),
        (fixture.token("first", Marks::unknown()), true),
        // Too old to be believed.
        (fixture.token_at(old, "first", Marks::at(at(5))), true),
    ] {
        let read = fixture.cookies(&[(slot.clone(), token.clone())]);
        assert_eq!(read.cookies.unsettled, is_unsettled, "{read:?}");
        let own = fixture.cookies(&[("ryw".into(), token.clone())]);
        assert!(!own.cookies.unsettled, "the session's own is replaced by each answer");
        // What another carrier does not know is not these cookies' to settle.
        let with_field = fixture.read(&[("ryw-token", &fixture.foreign(3)), ("cookie", &format!("{slot}={token}"))]);
        assert_eq!(with_field.cookies.unsettled, is_unsettled, "{with_field:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_cookie_is_taken_away_once() {
    let fixture = Fixture::new();
    let slot = fixture.slot("first");
    let (own, dead) = (fixture.token("own", Marks::at(at(5))), fixture.foreign(9));
    let twice = [("ryw".into(), own), (slot.to_string(), dead.clone()), (slot.to_string(), "x".into())];
    let read = fixture.cookies(&twice);
    assert!(read.cookies.dead && read.cookies.any && !read.cookies.crowded && read.cookies.kept.is_empty(), "{read:?}");
    assert_eq!(read.cookies.removed[..], [slot]);
    assert_eq!(read.keys[..], [Fixture::session("own")]);
    // The session's own is replaced and need not be taken away.
    let read = fixture.cookies(&[("ryw".into(), dead)]);
    assert!(read.cookies.dead && read.cookies.removed.is_empty() && !read.has_session, "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_cookies_says_more_than_is_looked_at() {
    let fixture = Fixture::new();
    let jar = |births: usize| -> Vec<(String, String)> {
        let names = (0..births).map(|n| format!("s{n}"));
        let births = names.map(|name| (fixture.slot(&name).to_string(), fixture.token(&name, Marks::at(at(5)))));
        [("ryw".into(), fixture.token("own", Marks::at(at(5))))].into_iter().chain(births).collect()
    };
    for (births, is_crowd, removed) in [
        (wire::MAX_COOKIES - 2, false, 0),
        (wire::MAX_COOKIES - 1, false, 0),
        (wire::MAX_COOKIES, true, wire::MAX_COOKIES),
        (100, true, 32),
    ] {
        let read = fixture.cookies(&jar(births));
        assert_eq!((read.cookies.crowded, read.carried.marks.is_unknown()), (is_crowd, is_crowd), "{births}");
        assert_eq!(read.cookies.removed.len(), removed, "{births}");
        assert_eq!(read.keys.len(), (births + 1).min(wire::MAX_COOKIES), "{births}");
        assert!(read.carried.hint.is_none() && !read.cookies.dead, "{births}");
        // With one that can't be believed, what the others say is no more than doubtful.
        let mut jar = jar(births - 1);
        jar.insert(1, (fixture.slot("dead").to_string(), "x".into()));
        let read = fixture.cookies(&jar);
        assert!(read.cookies.dead && !read.cookies.crowded && !read.carried.marks.is_unknown(), "{births}: {read:?}");
        assert!(read.carried.hint.is_unknown(), "{births}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_tenants_cookies_are_heeded_and_kept_up_to_a_number() {
    let fixture = Fixture::new();
    let name = |tenant: &str| CookieName::of(&fixture.config, &tenant.parse().unwrap()).unwrap();
    let token = |tenant: &str, issued_at, marks| {
        let tenant: Tenant = tenant.parse().unwrap();
        let session = key(1).session(&tenant, &"me".parse().unwrap());
        Token { session, issued_at, marks }.seal(&fixture.config.keys, &tenant)
    };
    let mut doubtful = Marks::unknown();
    doubtful.join(&Marks::at(at(9)));
    let read = fixture.cookies(&[
        (name("acme").to_string(), token("acme", fixture.now, doubtful)),
        ("ryw".into(), fixture.token("own", Marks::at(at(5)))),
    ]);
    assert_eq!(
        (offsets(&read.carried.marks), &read.carried.hint),
        (vec![5], &Marks::at(at(9))),
        "not theirs to find out"
    );
    assert!(read.cookies.any && !read.cookies.dead && read.cookies.removed.is_empty(), "{read:?}");
    assert_eq!(read.keys[..], [Fixture::session("own")]);
    // Nobody's but another tenant's: they are no cookies of this session.
    let read = fixture.cookies(&[(name("acme").to_string(), token("acme", fixture.now, Marks::at(at(9))))]);
    assert!(!read.cookies.any && !read.has_session && offsets(&read.carried.hint) == [9], "{read:?}");
    // One tenant's own are read there, and with them those of its births.
    let jar = format!("{}={}", name("acme"), token("acme", fixture.now, Marks::at(at(9))));
    let read = fixture.read(&[("tenant", "acme"), ("cookie", &jar)]);
    assert!(read.tenant == acme() && read.has_session && offsets(&read.carried.marks) == [9], "{read:?}");
    // Of too many those go, and say nothing, that nobody has come back to for the longest time.
    for others in [wire::MAX_COOKIES, wire::MAX_COOKIES + 2] {
        let jar: Vec<_> = (0..others)
            .map(|n| {
                let (tenant, offset) = (format!("t{n}"), 100 - n as u64);
                let issued_at = fixture.now - u32::try_from(others - n).unwrap();
                (name(&tenant).to_string(), token(&tenant, issued_at, Marks::at(at(offset))))
            })
            .rev()
            .collect();
        let surplus = others - wire::MAX_COOKIES;
        let read = fixture.cookies(&jar);
        let expected: Vec<_> = (0..surplus).map(|n| name(&format!("t{n}"))).collect();
        assert_eq!(read.cookies.removed[..], expected[..]);
        assert_eq!(offsets(&read.carried.hint), [100 - surplus as u64]);
    }
}
