//! Writes a large consistent history to standard output: `scale OPERATIONS SESSIONS [SEED]`.
//!
//! One primary and replicas that lag; every read shows what its session is owed, and otherwise what a replica happens to have.

use std::{
    env,
    error::Error,
    io::{self, BufWriter, Write},
};

/// Elements per list, so that reads of lists stay short.
const LENGTH: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let mut next = |default: u64| args.next().map_or(Ok(default), |arg| arg.parse());
    let (count, sessions, seed) = (next(6_000_000)?, next(64)?.max(1), next(1)?);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let mut list: Vec<u64> = Vec::new();
    let mut key = 0;
    let mut owed = vec![0; usize::try_from(sessions)?];
    for id in 0..count {
        let session = rng.usize(..owed.len());
        let (inv, ret) = (id * 10, id * 10 + 9);
        if rng.bool() {
            list.push(id);
            owed[session] = list.len();
            writeln!(
                out,
                r#"{{"id":{id},"s":"u{session}","f":"append","k":"k{key}","v":{id},"inv":{inv},"ret":{ret},"out":"ok","level":"CAUSAL","node":"p"}}"#
            )?;
        } else {
            // Whoever reads learns what the writers knew; on one list that is its prefix.
            let shown = rng.usize(owed[session]..=list.len());
            owed[session] = shown;
            let val = &list[..shown];
            writeln!(
                out,
                r#"{{"id":{id},"s":"u{session}","f":"read","k":"k{key}","val":{val:?},"inv":{inv},"ret":{ret},"out":"ok","level":"CAUSAL","node":"r"}}"#
            )?;
        }
        if list.len() == LENGTH || id + 1 == count {
            writeln!(out, r#"{{"id":{},"f":"final","k":"k{key}","val":{list:?}}}"#, count + key)?;
            list.clear();
            owed.fill(0);
            key += 1;
        }
    }
    out.flush()?;
    Ok(())
}
