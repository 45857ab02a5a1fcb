//! Whether the time that a forged token takes tells how much of its signature is right.
//!
//! `cargo run --release -p ryw-bench --bin constant_time`. The method is that of *dudect* (Reparaz, Balasch, Verbauwhede:
//! "Dude, is my code constant time?", 2017): two classes of inputs in random order, here signatures that are wrong from
//! the first byte on and signatures of which only the last byte is wrong, and Welch's t-test between their times, with
//! the slowest tenth left out. Beyond |t| = 4.5 the classes differ. The same token with a comparison that stops at the
//! first difference is measured in the same run: where that is not found, the run says nothing. Both are measured over
//! many tokens, so that it is not the characters of one that make the difference.

use std::{error::Error, hint::black_box};

use ryw_bench::report::Spread;
use tokio::time::Instant;
use tower_ryw::{ClusterId, Epoch, Keyring, Marks, Position, Tenant, Token};

const SAMPLES: usize = 1_000_000;
/// A signature's characters, at the end of the text: 16 bytes.
const SIGNATURE: usize = 21;
const RUNS: usize = 5;
const TOKENS: u64 = 1_000;
const THRESHOLD: f64 = 4.5;

/// Stops at the first difference, as comparisons do that were not made for secrets.
#[inline(never)]
fn naive(one: &[u8], two: &[u8]) -> bool {
    one.iter().zip(two).all(|(one, two)| black_box(one) == black_box(two))
}

/// A token, and what has to be written into it to make it a forgery of one class or of the other.
struct Forgery {
    honest: Vec<u8>,
    /// For each class, the characters at [`EARLY`] and [`LATE`], counted from the end.
    classes: [[u8; 2]; 2],
}

/// The second character of the signature.
const EARLY: usize = SIGNATURE - 1;
/// The last character that is all signature: the one after it has bits that are not.
const LATE: usize = 2;

impl Forgery {
    fn of(token: &str) -> Self {
        let honest = token.as_bytes().to_vec();
        let [early, late] = [EARLY, LATE].map(|place| honest[honest.len() - place]);
        let other = |byte| if byte == b'A' { b'B' } else { b'A' };
        Self { honest, classes: [[other(early), late], [early, other(late)]] }
    }

    fn write(&self, class: usize, text: &mut Vec<u8>) {
        text.clear();
        text.extend_from_slice(&self.honest);
        for (place, byte) in [EARLY, LATE].into_iter().zip(self.classes[class]) {
            let at = text.len() - place;
            text[at] = byte;
        }
    }
}

/// Welch's t between the times of two classes of forgeries, in random order, of which `check` takes one and the honest
/// token that it was made from.
fn t_value(forgeries: &[Forgery], check: impl Fn(&str, &[u8]) -> bool) -> f64 {
    // What is done before the clock starts is the same for both: the same number of bytes is written, to the same place.
    let chosen: Vec<_> = (0..SAMPLES).map(|_| (fastrand::usize(..forgeries.len()), fastrand::usize(..2))).collect();
    let (mut times, mut input) = (vec![0.0; SAMPLES], Vec::new());
    for (time, (forgery, class)) in times.iter_mut().zip(&chosen) {
        let forgery = &forgeries[*forgery];
        forgery.write(*class, &mut input);
        let text = std::str::from_utf8(black_box(&input)).unwrap_or_default();
        let started = Instant::now();
        black_box(check(text, &forgery.honest));
        *time = started.elapsed().as_nanos() as f64;
    }
    // What was interrupted says nothing about the code; the same limit for both.
    let mut all = times.clone();
    all.sort_by(f64::total_cmp);
    let limit = all[all.len() * 9 / 10];
    let of = |class| {
        let mine = times.iter().zip(&chosen).filter(|(time, (_, of))| *of == class && **time <= limit);
        Moments::of(mine.map(|(time, _)| *time))
    };
    let (one, two) = (of(0), of(1));
    (one.mean - two.mean) / (one.variance / one.count + two.variance / two.count).sqrt()
}

/// The median of |t| over several runs: a machine that does other things at the same time disturbs some of them.
fn median_t(forgeries: &[Forgery], check: impl Fn(&str, &[u8]) -> bool) -> f64 {
    Spread::of((0..RUNS).map(|_| t_value(forgeries, &check).abs()).collect()).median
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    /// By Welford's recurrence.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for value in values {
            count += 1.0;
            let difference = value - mean;
            mean += difference / count;
            squares += difference * (value - mean);
        }
        Self { count, mean, variance: squares / (count - 1.0) }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (keys, tenant) = (Keyring::random()?, Tenant::default());
    let mut forgeries = Vec::new();
    for n in 0..TOKENS {
        let session = keys.newest().session(&tenant, &format!("session{n}").parse()?);
        let marks = Marks::at(Position::new(ClusterId::new(1), Epoch::new(1), n));
        forgeries.push(Forgery::of(&Token { session, issued_at: 1_700_000_000, marks }.seal(&keys, &tenant)));
    }
    let ours = median_t(&forgeries, |token, _| Token::open(&keys, &tenant, token).is_ok());
    let control = median_t(&forgeries, |token, honest| {
        Token::peek(token).is_ok() && {
            let start = honest.len() - SIGNATURE;
            naive(&token.as_bytes()[start..], &honest[start..])
        }
    });
    println!("|t| between signatures wrong from the start and wrong at the end, median of {RUNS} runs of {SAMPLES}");
    println!("Token::open                          {:>8.1}", ours);
    println!("a comparison that stops at once      {:>8.1}", control);
    if control <= THRESHOLD {
        return Err("the comparison that stops at once was not found: this run says nothing".into());
    }
    if ours > THRESHOLD {
        return Err("the time of Token::open tells how much of a signature is right".into());
    }
    println!("below {THRESHOLD}: no difference was found");
    Ok(())
}
