//! Starts real PostgreSQL servers; needs Debian's package `postgresql`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ryw_testing::{
    proxy::{Direction, Proxy},
    servers::postgres::{Cluster, Server, ServerErrorKind, Standby, bin_dir},
};

use crate::support::{Owner, Temp, To, assert_gone, processes_of, role, soon};

fn create_table(server: &Server) {
    server.psql("create table t (id int primary key)").unwrap();
}

fn insert(server: &Server, id: u32) {
    server.psql(&format!("insert into t values ({id})")).unwrap();
}

fn rows(server: &Server) -> String {
    let sql = "select coalesce(string_agg(id::text, ',' order by id), '') from t";
    server.psql(sql).unwrap()
}

#[test]
fn a_write_reaches_the_standbys_and_the_late_one_later() {
    let cluster = Cluster::builder()
        .standby(Standby::named("near"))
        .standby(Standby::named("late").apply_delay(Duration::from_secs(2)))
        .primary_setting("synchronous_commit", "off")
        .start()
        .unwrap();
    let [near, late] = cluster.standbys() else {
        panic!("two standbys");
    };
    let primary = cluster.primary();
    assert_eq!(primary.psql("show synchronous_commit").unwrap(), "off");
    assert_eq!(near.psql("show synchronous_commit").unwrap(), "on");
    assert_eq!(near.psql("show cluster_name").unwrap(), "near");
    assert_eq!(primary.url(), format!("postgres://ryw@127.0.0.1:{}/postgres", primary.port()));

    create_table(primary);
    soon("the table is replayed", || late.psql("select from t").is_ok());
    insert(primary, 1);
    soon("the near one shows the row", || rows(near) == "1");
    assert_eq!(rows(late), "", "the late one does not show it yet");
    soon("the late one shows the row", || rows(late) == "1");

    let folder = cluster.folder().to_owned();
    assert!(!processes_of(&folder).is_empty());
    let start = Instant::now();
    drop(cluster);
    assert!(start.elapsed() < Duration::from_secs(5), "no wait ran out");
    assert!(!folder.exists(), "dropping waits for the end");
    assert_eq!(processes_of(&folder), <[PathBuf; 0]>::default());
}

#[test]
fn a_server_comes_back_after_a_kill_and_after_a_stop() {
    let mut cluster = Cluster::builder().standby(Standby::named("r1")).start().unwrap();
    let (port, pid) = (cluster.primary().port(), cluster.primary().pid());
    create_table(cluster.primary());
    insert(cluster.primary(), 1);

    for crash in [true, false, true] {
        let primary = cluster.primary_mut();
        assert!(primary.is_running());
        if crash {
            primary.kill().unwrap();
        } else {
            primary.stop_fast().unwrap();
        }
        assert!(!primary.is_running());
        assert_eq!(primary.pid(), None);
        assert_eq!(primary.psql("select 1").unwrap_err().kind(), ServerErrorKind::Sql);
        primary.start().unwrap();
        assert_eq!(primary.port(), port);
        assert_ne!(primary.pid(), pid);
    }
    insert(cluster.primary(), 2);
    soon("the standby streams again", || rows(&cluster.standbys()[0]) == "1,2");

    cluster.standbys_mut()[0].kill().unwrap();
    insert(cluster.primary(), 3);
    cluster.standbys_mut()[0].start().unwrap();
    soon("the standby catches up", || rows(&cluster.standbys()[0]) == "1,2,3");
    assert!(cluster.primary().log_tail().contains("ready to accept connections"));
}

#[test]
fn a_killed_server_comes_back_though_an_old_child_is_busy() {
    let mut cluster = Cluster::builder().start().unwrap();
    let busy = "select sum(i) from generate_series(1, 20000000) i";
    let mut client = Command::new(bin_dir().unwrap().join("psql"))
        .args(["-Xqc", busy, &cluster.primary().url()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let active = "select count(*) from pg_stat_activity where query like 'select sum%'";
    soon("the query runs", || cluster.primary().psql(active).unwrap() == "1");

    cluster.primary_mut().kill().unwrap();
    cluster.primary_mut().start().unwrap();

    assert!(cluster.primary().log_tail().contains("shared memory block"));
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn a_standby_takes_over_and_its_sibling_follows() {
    let mut cluster = Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2")).start().unwrap();
    create_table(cluster.primary());
    insert(cluster.primary(), 1);
    let r1 = cluster.server("r1").unwrap();
    soon("r1 shows the row", || r1.psql("select from t").is_ok() && rows(r1) == "1");
    assert_eq!(cluster.primary().promote().unwrap_err().kind(), ServerErrorKind::Sql);

    cluster.primary_mut().kill().unwrap();
    let r1 = cluster.server("r1").unwrap();
    r1.promote().unwrap();
    insert(r1, 2);
    cluster.follow("r2", "r1").unwrap();
    let r2 = cluster.server("r2").unwrap();
    soon("r2 follows r1", || rows(r2) == "1,2");
    assert_eq!(cluster.follow("r2", "r9").unwrap_err().kind(), ServerErrorKind::InvalidConfig);
}

#[test]
fn replaced_primaries_come_back_as_standbys() {
    let mut cluster = Cluster::builder().standby(Standby::named("r1")).start().unwrap();
    create_table(cluster.primary());
    insert(cluster.primary(), 1);
    for (id, old, new, crash) in [(2, "primary", "r1", false), (4, "r1", "primary", true)] {
        let server = |name| cluster.server(name).unwrap();
        soon("the standby has it all", || {
            let rows = |server: &Server| server.psql("select count(*) from t").ok();
            rows(server(new)) == rows(server(old))
        });
        server(new).promote().unwrap();
        insert(server(old), 10 + id);
        insert(server(new), id);
        if crash {
            cluster.server_mut(old).unwrap().kill().unwrap();
        }

        cluster.rewind(old, new).unwrap();

        let server = |name| cluster.server(name).unwrap();
        insert(server(new), id + 1);
        let expected = (1..=id + 1).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        soon("the old one follows", || rows(server(old)) == expected);
        assert_eq!(server(old).psql("select pg_is_in_recovery()").unwrap(), "t");
        assert_eq!(server(old).psql("show cluster_name").unwrap(), old, "it keeps its own settings");
    }
    assert_eq!(cluster.rewind("r1", "r1").unwrap_err().kind(), ServerErrorKind::InvalidConfig);
    assert_eq!(cluster.rewind("r1", "r9").unwrap_err().kind(), ServerErrorKind::InvalidConfig);
}

#[test]
fn a_standby_goes_back_to_what_it_was() {
    let mut cluster = Cluster::builder().standby(Standby::named("r1")).start().unwrap();
    create_table(cluster.primary());
    insert(cluster.primary(), 1);
    soon("r1 has the row", || {
        cluster.standbys()[0].psql("select from t").is_ok() && rows(&cluster.standbys()[0]) == "1"
    });
    let backup = cluster.standbys_mut()[0].save().unwrap();
    insert(cluster.primary(), 2);
    soon("r1 goes on", || rows(&cluster.standbys()[0]) == "1,2");
    let port = cluster.standbys()[0].port();

    cluster.primary_mut().stop_fast().unwrap();
    for crash in [false, true] {
        if crash {
            cluster.standbys_mut()[0].kill().unwrap();
        }
        cluster.standbys_mut()[0].restore(&backup).unwrap();
        assert_eq!(rows(&cluster.standbys()[0]), "1");
        assert_eq!(cluster.standbys()[0].port(), port);
        let log = fs::read_to_string(cluster.folder().join("r1.log")).unwrap();
        assert_eq!(log.contains("interrupted while in recovery"), crash, "a killed one recovers before it is replaced");
    }
    cluster.primary_mut().start().unwrap();
    soon("r1 catches up", || rows(&cluster.standbys()[0]) == "1,2");

    assert_eq!(cluster.primary_mut().restore(&backup).unwrap_err().kind(), ServerErrorKind::InvalidConfig);
    let entries = || fs::read_dir(cluster.folder()).unwrap().count();
    let before = entries();
    drop(backup);
    assert_eq!(entries(), before - 1);
}

/// Commits in a process of its own; the result waits for its end.
fn commit(server: &Server, id: u32) -> impl FnOnce() {
    let mut client = Command::new(bin_dir().unwrap().join("psql"))
        .args(["-Xqc", &format!("insert into t values ({id})"), &server.url()])
        .spawn()
        .unwrap();
    move || assert!(client.wait().unwrap().success())
}

#[test]
fn commits_wait_for_synchronous_standbys_that_are_frozen_or_cut_off() {
    let mut cluster = Cluster::builder().standby(Standby::named("r1")).start().unwrap();
    let (primary, r1) = (cluster.primary(), &cluster.standbys()[0]);
    create_table(primary);
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    let assert_waits = || soon("the commit waits", || primary.psql(waiting).unwrap() == "1");

    cluster.synchronous("r1").unwrap();
    insert(primary, 1);
    r1.freeze().unwrap();
    let done = commit(primary, 2);
    assert_waits();
    r1.thaw().unwrap();
    done();
    assert_eq!(primary.psql("select sync_state from pg_stat_replication").unwrap(), "sync");
    assert_eq!(cluster.synchronous("'").unwrap_err().kind(), ServerErrorKind::Sql);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start([("127.0.0.1", primary.port())])).unwrap();
    cluster.reconnect("r1", proxy.port()).unwrap();
    assert_eq!(proxy.connections(), 1);
    insert(primary, 3);
    proxy.black_hole(Direction::ToClient);
    let done = commit(primary, 4);
    assert_waits();
    assert!(!rows(r1).contains('4'));
    proxy.heal();
    done();
    soon("r1 has the row", || rows(r1) == "1,2,3,4");

    proxy.black_hole(Direction::Both);
    let done = commit(primary, 5);
    assert_waits();
    cluster.synchronous("").unwrap();
    done();
    insert(primary, 6);

    // A frozen server can be ended in every way, and all of it ends.
    let r1 = &mut cluster.standbys_mut()[0];
    let processes = processes_of_server(r1);
    r1.freeze().unwrap();
    r1.kill().unwrap();
    soon("its processes are gone", || processes.iter().all(|process| !process.exists()));
    r1.start().unwrap();
    r1.freeze().unwrap();
    r1.stop_fast().unwrap();
    r1.start().unwrap();
    proxy.heal();
    soon("r1 has all rows", || rows(&cluster.standbys()[0]) == "1,2,3,4,5,6");

    let processes: Vec<_> =
        cluster.standbys().iter().chain([cluster.primary()]).flat_map(processes_of_server).collect();
    cluster.primary().freeze().unwrap();
    cluster.standbys()[0].freeze().unwrap();
    let start = Instant::now();
    drop(cluster);
    assert!(start.elapsed() < Duration::from_secs(4), "PostgreSQL's own patience with its children is 5 s");
    soon("its processes are gone", || processes.iter().all(|process| !process.exists()));
}

/// The server's processes in /proc, but not those of its clients.
fn processes_of_server(server: &Server) -> Vec<PathBuf> {
    let ids = server.psql("select pid from pg_stat_activity where pid <> pg_backend_pid()").unwrap();
    let postmaster = server.pid().unwrap().to_string();
    let processes: Vec<_> = ids.lines().chain([&*postmaster]).map(|id| Path::new("/proc").join(id)).collect();
    assert!(processes.len() > 3 && processes.iter().all(|process| process.exists()));
    processes
}

#[test]
fn standbys_can_form_a_cascade() {
    let cluster =
        Cluster::builder().standby(Standby::named("r1")).standby(Standby::named("r2").upstream("r1")).start().unwrap();
    create_table(cluster.primary());
    insert(cluster.primary(), 1);
    let upstreams = |server: &Server| server.psql("select application_name from pg_stat_replication").unwrap();
    assert_eq!(upstreams(cluster.primary()), "r1");
    assert_eq!(upstreams(&cluster.standbys()[0]), "r2");
    let r2 = &cluster.standbys()[1];
    soon("the row passes both", || r2.psql("select from t").is_ok() && rows(r2) == "1");
}

#[test]
fn clusters_do_not_disturb_each_other() {
    let clusters: Vec<Cluster> = thread::scope(|scope| {
        let start = || Cluster::builder().standby(Standby::named("r1")).start().unwrap();
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (id, cluster) in (1..).zip(&clusters) {
        create_table(cluster.primary());
        insert(cluster.primary(), id);
    }
    for (id, cluster) in (1..).zip(&clusters) {
        assert_eq!(rows(cluster.primary()), id.to_string());
    }
    let mut clusters = clusters.into_iter();
    drop(clusters.next());
    assert_eq!(rows(clusters.next().unwrap().primary()), "2");
}

#[test]
fn a_panic_cleans_up() {
    let mut folder = PathBuf::new();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let cluster = Cluster::builder().start().unwrap();
        cluster.folder().clone_into(&mut folder);
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert!(!folder.exists());
    assert_gone(&folder);
}

#[test]
fn a_failed_start_says_why_and_leaves_nothing() {
    let temp = Temp::new("failed");
    let error = start_owner("bad-setting", &temp).error();
    assert!(error.starts_with("Exited "), "{error}");
    assert!(error.contains("no_such_setting"), "the log is shown: {error}");
    soon("nothing is left", || temp.entries() == 0);
}

#[test]
fn missing_binaries_are_named() {
    let temp = Temp::new("missing");
    let error = start_owner("missing", &temp).error();
    assert!(error.starts_with("MissingBinaries "), "{error}");
    assert!(error.contains("apt-get install postgresql"), "{error}");
    assert!(error.contains("RYW_PG_BIN"), "{error}");
    assert_eq!(temp.entries(), 0);
}

#[test]
fn the_servers_go_when_their_owner_is_killed() {
    let temp = Temp::new("killed");
    // To it alone, as by the system when memory is short; to its group, as a test runner's end of
    // a test that takes too long, and as Ctrl-C.
    for (signal, to) in [("KILL", To::Process), ("KILL", To::Group), ("INT", To::Group)] {
        let mut owner = start_owner("cluster", &temp);
        let folder = PathBuf::from(owner.line());
        let postmaster = PathBuf::from(owner.line());
        assert!(postmaster.exists() && folder.starts_with(&temp.0));

        owner.end(signal, to);

        soon("the postmaster is gone", || !postmaster.exists());
        assert_gone(&folder);
        assert_eq!(temp.entries(), 0);
    }
}

#[test]
fn the_servers_go_when_their_owner_is_killed_at_the_start() {
    let temp = Temp::new("early");
    for millis in [0, 0, 1, 100, 400, 700, 900, 1100] {
        let mut owner = start_owner("cluster", &temp);
        soon("a folder is made", || temp.entries() > 0);
        thread::sleep(Duration::from_millis(millis));
        owner.end("KILL", To::Process);
        soon("nothing is left", || temp.entries() == 0);
        soon("no process is left", || processes_of(&temp.0).is_empty());
    }
}

#[test]
fn a_killed_server_of_a_killed_owner_leaves_no_shared_memory() {
    let temp = Temp::new("segment");
    let mut owner = start_owner("killed-server", &temp);
    let folder = PathBuf::from(owner.line());
    let pidfile = fs::read_to_string(folder.join("primary/postmaster.pid")).unwrap();
    let segment = pidfile.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap();
    let exists = || {
        fs::read_to_string("/proc/sysvipc/shm")
            .unwrap()
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some(segment))
    };
    assert!(exists());
    owner.end("KILL", To::Process);
    assert_gone(&folder);
    assert!(!exists());
}

/// A process that does what [`owner`] does, with what must not reach the servers.
fn start_owner(role: &str, temp: &Temp) -> Owner {
    let mut environment =
        vec![("PGPORT", "1"), ("PGHOST", "192.0.2.1"), ("PGDATA", "/nonexistent"), ("PGOPTIONS", "--no-such-option=1")];
    if role == "missing" {
        environment.push(("RYW_PG_BIN", "/nonexistent"));
    }
    Owner::start("postgres::owner", role, temp, &environment)
}

/// Not a test by itself: what the process of [`Owner`] does.
#[test]
fn owner() {
    let Some(role) = role() else { return };
    let builder = Cluster::builder().standby(Standby::named("r1"));
    let builder = match &*role {
        "bad-setting" => builder.setting("no_such_setting", "1"),
        _ => builder,
    };
    match builder.start() {
        Ok(mut cluster) => {
            let postmaster = cluster.primary().pid().unwrap();
            if role == "killed-server" {
                cluster.primary_mut().kill().unwrap();
            }
            eprintln!("{}", cluster.folder().display());
            eprintln!("/proc/{postmaster}");
            thread::sleep(Duration::from_secs(60));
        }
        Err(error) => eprintln!("{:?} {error}", error.kind()),
    }
}
