//! Starts real Redis servers; needs Debian's package `redis-server`.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use ryw_testing::{
    proxy::{Direction, Proxy},
    servers::redis::{RedisCluster, RedisServer, Sentinels, ServerErrorKind},
};

use crate::support::{Owner, Temp, To, assert_gone, processes_of, role, soon};

const SOON: Duration = Duration::from_secs(10);

fn set(server: &RedisServer, key: &str, value: &str) {
    assert_eq!(server.cli(&["SET", key, value]).unwrap(), "OK");
}

fn get(server: &RedisServer, key: &str) -> String {
    server.cli(&["GET", key]).unwrap()
}

/// The folder of all servers of its set.
fn home(server: &RedisServer) -> PathBuf {
    server.folder().parent().unwrap().to_owned()
}

#[test]
fn only_a_persistent_server_has_its_keys_after_a_restart() {
    for persistent in [false, true] {
        let builder = RedisServer::builder();
        let mut server = if persistent { builder.persistent() } else { builder }.start().unwrap();
        let (port, pid) = (server.port(), server.pid());
        assert_eq!(server.url(), format!("redis://127.0.0.1:{port}"));
        for crash in [true, false, true] {
            set(&server, "k", "v");
            assert!(server.is_running());
            if crash {
                server.kill().unwrap();
            } else {
                server.stop().unwrap();
            }
            assert!(!server.is_running());
            assert_eq!(server.pid(), None);
            assert_eq!(server.cli(&["PING"]).unwrap_err().kind(), ServerErrorKind::Command);

            server.start().unwrap();
            assert_eq!(server.port(), port);
            assert_ne!(server.pid(), pid);
            assert_eq!(
                get(&server, "k"),
                if persistent { "v" } else { "" },
                "persistent: {persistent}, crash: {crash}"
            );
        }
        assert!(server.log_tail().contains("Ready to accept connections"));
    }
}

#[test]
fn the_last_answered_write_of_many_survives_a_kill() {
    let mut server = RedisServer::builder().persistent().start().unwrap();
    for round in 0..20 {
        let last = round.to_string();
        set(&server, "last", &last);
        server.kill().unwrap();
        server.start().unwrap();
        assert_eq!(get(&server, "last"), last);
    }
}

#[test]
fn settings_and_replies_are_passed_on() {
    let server = RedisServer::builder()
        .setting("maxmemory", "10mb")
        .setting("client-output-buffer-limit", "replica 1mb 2mb 60")
        .start()
        .unwrap();
    assert_eq!(server.cli(&["CONFIG", "GET", "maxmemory"]).unwrap(), "maxmemory\n10485760");
    assert!(server.cli(&["CONFIG", "GET", "client-output-buffer-limit"]).unwrap().contains("slave 1048576 2097152 60"));
    assert_eq!(server.info("role").unwrap(), "master");
    assert_eq!(server.info("no_such_field").unwrap(), "");

    set(&server, "k", "a\r\n\"b\" ä");
    assert_eq!(get(&server, "k"), "a\r\n\"b\" ä");
    assert_eq!(server.cli(&["INCR", "n"]).unwrap(), "1");
    assert_eq!(server.cli(&["MGET", "n", "none", "n"]).unwrap(), "1\n\n1");
    let error = server.cli(&["INCR", "k"]).unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::Command);
    assert!(error.to_string().contains("not an integer"), "{error}");
}

#[test]
fn a_password_is_demanded() {
    let password = "p@ss \"word\" ä";
    let mut server = RedisServer::builder().password(password).start().unwrap();
    set(&server, "k", "v");
    assert_eq!(server.url(), format!("redis://:p%40ss%20%22word%22%20%C3%A4@127.0.0.1:{}", server.port()));
    let replica = RedisServer::builder().start().unwrap();
    replica.replica_of(&server).unwrap();
    assert_eq!(get(&replica, "k"), "v");

    server.cli(&["CONFIG", "SET", "requirepass", "another"]).unwrap();
    let error = server.cli(&["GET", "k"]).unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::Command);
    assert!(error.to_string().contains("WRONGPASS") && !error.to_string().contains("p@ss"), "{error}");
    server.kill().unwrap();
    server.start().unwrap();
    assert_eq!(get(&server, "k"), "", "its own password again, which is in its configuration");
}

#[test]
fn a_server_without_a_certificate_has_no_encrypted_port() {
    assert_eq!(RedisServer::builder().start().unwrap().tls_url(), None);
    let error = RedisServer::builder().tls("no PEM", "no PEM", "no PEM").start().unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::Exited, "{error}");
    let error = RedisServer::builder().setting("tls-port", "1").start().unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::InvalidConfig, "{error}");
}

#[test]
fn a_frozen_server_answers_once_it_is_thawed() {
    let mut server = RedisServer::builder().timeout(Duration::from_millis(300)).start().unwrap();
    set(&server, "k", "v");
    server.freeze().unwrap();
    assert!(server.is_running());
    assert_eq!(server.cli(&["GET", "k"]).unwrap_err().kind(), ServerErrorKind::Timeout);
    server.thaw().unwrap();
    assert_eq!(get(&server, "k"), "v");

    server.freeze().unwrap();
    server.kill().unwrap();
    server.start().unwrap();
    assert_eq!(get(&server, "k"), "");
    server.freeze().unwrap();
    server.stop().unwrap();
    assert_eq!(server.pid(), None);
}

#[test]
fn a_replica_follows_and_stays_one() {
    let mut master = RedisServer::builder().persistent().start().unwrap();
    let mut replica = RedisServer::builder().start().unwrap();
    set(&replica, "own", "x");
    set(&master, "k", "1");
    replica.replica_of(&master).unwrap();
    assert_eq!((get(&replica, "k").as_str(), get(&replica, "own").as_str()), ("1", ""), "in sync on return");
    let error = replica.cli(&["SET", "k", "2"]).unwrap_err();
    assert!(error.to_string().contains("READONLY"), "{error}");

    replica.freeze().unwrap();
    set(&master, "k", "2");
    assert_eq!(master.replicated(1, Duration::from_millis(100)).unwrap(), 0);
    replica.thaw().unwrap();
    assert_eq!(master.replicated(1, SOON).unwrap(), 1);
    assert_eq!(get(&replica, "k"), "2");

    replica.kill().unwrap();
    set(&master, "k", "3");
    replica.start().unwrap();
    soon("the replica syncs again", || get(&replica, "k") == "3");
    master.kill().unwrap();
    soon("the link is down", || replica.info("master_link_status").unwrap() == "down");
    master.start().unwrap();
    soon("the link is up", || replica.info("master_link_status").unwrap() == "up");
    assert_eq!(get(&replica, "k"), "3");

    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]).unwrap(), "OK");
    set(&replica, "k", "4");
    assert_eq!(get(&master, "k"), "3");
}

#[test]
fn a_replica_reaches_its_master_at_the_announced_port() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::start([("127.0.0.1", 1)])).unwrap();
    let master = RedisServer::builder().announced_port(proxy.port()).start().unwrap();
    proxy.retarget([("127.0.0.1", master.port())]);
    let replica = RedisServer::builder().start().unwrap();
    replica.replica_of(&master).unwrap();
    assert_eq!(replica.info("master_port").unwrap(), proxy.port().to_string());

    proxy.black_hole(Direction::Both);
    set(&master, "k", "1");
    assert_eq!(master.replicated(1, Duration::from_millis(100)).unwrap(), 0);
    assert_eq!(get(&replica, "k"), "");
    proxy.heal();
    soon("the write arrives", || get(&replica, "k") == "1");
}

#[test]
fn the_sentinels_replace_a_master_that_is_killed_or_frozen() {
    let mut set_of = Sentinels::builder().start().unwrap();
    assert_eq!(set_of.sentinel_urls().len(), 3);
    assert_eq!(set_of.master().unwrap().port(), set_of.servers()[0].port());
    let asked = set_of.sentinels()[1].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", set_of.service_name()]).unwrap();
    assert_eq!(asked, format!("127.0.0.1\n{}", set_of.servers()[0].port()));
    set(set_of.master().unwrap(), "k", "1");
    assert_eq!(set_of.master().unwrap().replicated(2, SOON).unwrap(), 2);

    let first = set_of.master().unwrap().port();
    set_of.master_mut().unwrap().kill().unwrap();
    soon("a replica takes over", || set_of.master().is_ok_and(|master| master.port() != first));
    set_of.wait_agreed().unwrap();
    let second = set_of.master().unwrap();
    assert_ne!(second.port(), first);
    assert_eq!(get(second, "k"), "1");
    set(second, "k", "2");
    assert_eq!(second.replicated(1, SOON).unwrap(), 1, "the other replica follows the new master");

    // It was not there when it was replaced, and still takes itself for the master.
    set_of.servers_mut()[0].start().unwrap();
    assert_eq!(set_of.servers()[0].info("role").unwrap(), "master");
    set_of.wait_agreed().unwrap();
    assert_eq!(set_of.servers()[0].info("role").unwrap(), "slave");
    assert_eq!(get(&set_of.servers()[0], "k"), "2");

    let second = set_of.master().unwrap().port();
    set_of.master().unwrap().freeze().unwrap();
    soon("another takes over", || set_of.master().is_ok_and(|master| master.port() != second));
}

#[test]
fn one_sentinel_alone_replaces_nobody() {
    let mut set_of = Sentinels::builder().timeout(Duration::from_secs(10)).start().unwrap();
    for sentinel in &mut set_of.sentinels_mut()[1..] {
        sentinel.kill().unwrap();
    }
    assert_eq!(set_of.master().unwrap_err().kind(), ServerErrorKind::Command);
    set_of.servers_mut()[0].kill().unwrap();
    let last = &set_of.sentinels()[0];
    soon("it sees that the master is down", || {
        last.cli(&["SENTINEL", "MASTER", "ryw"]).unwrap().lines().any(|line| line.contains("s_down"))
    });
    let roles = || set_of.servers()[1..].iter().map(|server| server.info("role").unwrap()).collect::<Vec<_>>();
    assert_eq!(roles(), ["slave", "slave"]);

    set_of.sentinels_mut()[1].start().unwrap();
    soon("two are enough", || set_of.master().is_ok_and(|master| master.port() != set_of.servers()[0].port()));
}

#[test]
fn a_master_that_is_cut_off_is_replaced_and_comes_back_as_a_replica() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (sender, proxies) = mpsc::channel();
    let handle = runtime.handle().clone();
    let set_of = Sentinels::builder()
        .password("secret word")
        .announce(move |port| {
            let proxy = handle.block_on(Proxy::start([("127.0.0.1", port)])).unwrap();
            let announced = proxy.port();
            sender.send(proxy).unwrap();
            announced
        })
        .start()
        .unwrap();
    let proxies: Vec<Proxy> = proxies.try_iter().collect();
    let ports = |servers: &[RedisServer]| servers.iter().map(RedisServer::announced_port).collect::<Vec<_>>();
    assert_eq!(ports(set_of.servers()), proxies.iter().map(Proxy::port).collect::<Vec<_>>());
    let old = &set_of.servers()[0];

    proxies[0].refuse();
    proxies[0].reset_all();
    soon("a replica takes over", || set_of.master().is_ok_and(|master| master.port() != old.port()));
    assert_eq!(old.info("role").unwrap(), "master", "nobody could tell it");
    set(old, "k", "lost");
    proxies[0].heal();
    set_of.wait_agreed().unwrap();
    // Not its role: on a busy machine it may be the master for a second time.
    assert_eq!(get(old, "k"), "", "as a replica it lost what nobody else had");
}

#[test]
fn a_slot_moves_with_its_keys() {
    let mut cluster = RedisCluster::builder().start().unwrap();
    assert_eq!(cluster.urls().len(), 3);
    let slot = cluster.slot("{tenant}").unwrap();
    let index = |port| cluster.servers().iter().position(|server| server.port() == port).unwrap();
    let from = cluster.owner(slot).unwrap();
    let to = &cluster.servers()[(index(from.port()) + 1) % 3];
    let third = &cluster.servers()[(index(from.port()) + 2) % 3];
    // More than are moved at once.
    for number in 0..250 {
        set(from, &format!("{{tenant}}:{number}\r\n"), &number.to_string());
    }
    assert!(to.cli(&["GET", "{tenant}:7\r\n"]).unwrap_err().to_string().contains("MOVED"));
    for (from, to) in [(to, from), (from, from), (third, to)] {
        assert_eq!(cluster.migrate_slot(slot, from, to).unwrap_err().kind(), ServerErrorKind::InvalidConfig);
    }
    assert_eq!(cluster.migrate_slot(16384, from, to).unwrap_err().kind(), ServerErrorKind::InvalidConfig);

    cluster.migrate_slot(slot, from, to).unwrap();

    assert_eq!(cluster.owner(slot).unwrap().port(), to.port());
    for number in 0..250 {
        assert_eq!(get(to, &format!("{{tenant}}:{number}\r\n")), number.to_string());
    }
    for other in [from, third] {
        let error = other.cli(&["GET", "{tenant}:7\r\n"]).unwrap_err().to_string();
        assert!(error.contains(&format!("MOVED {slot} 127.0.0.1:{}", to.port())), "{error}");
    }
    cluster.wait_ok().unwrap();
    let (from, to) = (index(from.port()), index(to.port()));
    cluster.servers_mut()[to].kill().unwrap();
    assert!(!cluster.is_ok().unwrap(), "though the others do not know of it yet");
    soon("the cluster fails", || {
        cluster.servers()[from].cli(&["CLUSTER", "INFO"]).unwrap().contains("cluster_state:fail")
    });
    cluster.servers_mut()[to].start().unwrap();
    cluster.wait_ok().unwrap();
    assert_eq!(cluster.owner(slot).unwrap().port(), cluster.servers()[to].port());
}

#[test]
fn a_master_of_a_cluster_is_replaced_by_its_replica() {
    let mut cluster = RedisCluster::builder().replicas().start().unwrap();
    assert_eq!(cluster.servers().len(), 6);
    let replica = &cluster.servers()[3];
    assert_eq!(replica.info("master_port").unwrap(), cluster.servers()[0].port().to_string());
    assert_eq!(cluster.owner(0).unwrap().port(), cluster.servers()[0].port());
    let key = (0..).map(|number| number.to_string()).find(|key| cluster.slot(key).unwrap() < 5461).unwrap();
    set(&cluster.servers()[0], &key, "v");
    assert_eq!(cluster.servers()[0].replicated(1, SOON).unwrap(), 1);

    cluster.servers_mut()[0].kill().unwrap();
    cluster.wait_ok().unwrap();

    assert_eq!(cluster.owner(0).unwrap().port(), cluster.servers()[3].port());
    assert_eq!(get(&cluster.servers()[3], &key), "v");
    cluster.servers_mut()[0].start().unwrap();
    cluster.wait_ok().unwrap();
    assert_eq!(cluster.servers()[0].info("role").unwrap(), "slave");
}

#[test]
fn a_cluster_sends_clients_to_the_announced_ports() {
    let (sender, ports) = mpsc::channel();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    let cluster = RedisCluster::builder()
        .announce(move |port| {
            let proxy = handle.block_on(Proxy::start([("127.0.0.1", port)])).unwrap();
            let announced = proxy.port();
            sender.send(proxy).unwrap();
            announced
        })
        .start()
        .unwrap();
    let proxies: Vec<Proxy> = ports.try_iter().collect();
    let error = cluster.servers()[0].cli(&["CLUSTER", "SLOTS"]).unwrap();
    for proxy in &proxies {
        assert!(error.lines().any(|line| line == proxy.port().to_string()), "{error}");
    }
    let slot = cluster.slot("k").unwrap();
    let owner = cluster.owner(slot).unwrap();
    let other = cluster.servers().iter().find(|server| server.port() != owner.port()).unwrap();
    let error = other.cli(&["GET", "k"]).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{}", owner.announced_port())), "{error}");
    cluster.migrate_slot(slot, owner, other).unwrap();
    assert_eq!(get(other, "k"), "");
}

#[test]
fn dropping_removes_all() {
    let start = Instant::now();
    let server = RedisServer::builder().start().unwrap();
    let folder = home(&server);
    assert!(!processes_of(&folder).is_empty());
    server.freeze().unwrap();
    drop(server);
    assert!(!folder.exists(), "dropping waits for the end");
    assert_eq!(processes_of(&folder), <[PathBuf; 0]>::default());
    assert!(start.elapsed() < Duration::from_secs(5), "no wait ran out");
}

#[test]
fn a_panic_cleans_up() {
    let (sender, folder) = mpsc::channel();
    let panicked = thread::spawn(move || {
        let server = RedisServer::builder().start().unwrap();
        sender.send(home(&server)).unwrap();
        panic!("as a failing test does");
    })
    .join();
    assert!(panicked.is_err());
    let folder = folder.recv().unwrap();
    assert!(!folder.exists());
    assert_gone(&folder);
}

#[test]
fn a_failed_start_says_why_and_leaves_nothing() {
    let temp = Temp::new("redis-failed");
    for (role, expected) in [
        ("bad-setting", vec!["Exited", "no-such-setting"]),
        ("bad-name", vec!["InvalidConfig", "port"]),
        ("missing", vec!["MissingBinaries", "apt-get install redis-server"]),
    ] {
        let error = start_owner(role, &temp).error();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        soon("nothing is left", || temp.entries() == 0);
        assert_gone(&temp.0.join("x"));
    }
}

#[test]
fn the_servers_go_when_their_owner_is_killed() {
    let temp = Temp::new("redis-killed");
    for (role, signal, to) in
        [("server", "KILL", To::Process), ("sentinels", "KILL", To::Group), ("frozen", "INT", To::Group)]
    {
        let mut owner = start_owner(role, &temp);
        let folder = PathBuf::from(owner.line());
        let server = PathBuf::from(owner.line());
        assert!(server.exists() && folder.starts_with(&temp.0), "{role}");

        owner.end(signal, to);

        soon("the server is gone", || !server.exists());
        assert_gone(&folder);
        assert_eq!(temp.entries(), 0);
    }
}

#[test]
fn the_servers_go_when_their_owner_is_killed_at_the_start() {
    let temp = Temp::new("redis-early");
    for millis in [0, 0, 1, 5, 10, 20, 40, 80] {
        let mut owner = start_owner("sentinels", &temp);
        soon("a folder is made", || temp.entries() > 0);
        thread::sleep(Duration::from_millis(millis));
        owner.end("KILL", To::Process);
        soon("nothing is left", || temp.entries() == 0);
        soon("no process is left", || processes_of(&temp.0).is_empty());
    }
}

/// A process that does what [`owner`] does.
fn start_owner(role: &str, temp: &Temp) -> Owner {
    let environment: &[_] = if role == "missing" { &[("RYW_REDIS_BIN", "/nonexistent")] } else { &[] };
    Owner::start("redis::owner", role, temp, environment)
}

/// Not a test by itself: what the process of [`start_owner`] does.
#[test]
fn owner() {
    fn show(server: &RedisServer) {
        let folder: &Path = &home(server);
        eprintln!("{}\n/proc/{}", folder.display(), server.pid().unwrap());
        thread::sleep(Duration::from_secs(60));
    }
    let Some(role) = role() else { return };
    let builder = match &*role {
        "sentinels" => {
            let set_of = Sentinels::builder().start().unwrap();
            return show(set_of.master().unwrap());
        }
        "bad-setting" => RedisServer::builder().setting("no-such-setting", "1"),
        "bad-name" => RedisServer::builder().setting("port", "1"),
        _ => RedisServer::builder(),
    };
    match builder.start() {
        Ok(server) => {
            if role == "frozen" {
                server.freeze().unwrap();
            }
            show(&server);
        }
        Err(error) => eprintln!("{:?} {error}", error.kind()),
    }
}
