//! Control groups of every kind, as files, and what follows from them.

use super::*;
use crate::proxy::stages::Source;
use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;

/// A root of a file system with these files.
fn root(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn level(root: &TempDir, limit: MemoryLimit) -> Option<Level> {
    Watched::below(root.path(), limit).map(|watched| watched.level())
}

#[test]
fn levels_begin_at_85_92_and_97_percent() {
    let levels = [0, 84, 85, 91, 92, 96, 97, 100, 300].map(|percent| Level::of(percent * MIB, 100 * MIB));
    use Level::*;
    let expected = [Enough, Enough, NothingNewIsHeld, NothingNewIsHeld, NobodyNew, NobodyNew];
    assert_eq!(levels[..6], expected);
    assert_eq!(levels[6..], [NewestLeave; 3]);
    assert_eq!(Level::of(1, 0), NewestLeave);
    assert_eq!(Level::of(u64::MAX, u64::MAX), NewestLeave);
    for level in [Enough, NothingNewIsHeld, NobodyNew, NewestLeave] {
        assert_eq!(Level::from_number(level as u8), level);
    }
}

#[test]
fn inactive_files_are_not_used_memory() {
    let root = root(&[
        ("proc/self/cgroup", "0::/\n"),
        ("sys/fs/cgroup/memory.max", "104857600\n"),
        ("sys/fs/cgroup/memory.current", "100000000\n"),
        ("sys/fs/cgroup/memory.stat", "anon 1\ninactive_anon 90000000\ninactive_file 50000000\n"),
    ]);
    assert_eq!(level(&root, MemoryLimit::Auto), Some(Level::Enough));
    fs::write(root.path().join("sys/fs/cgroup/memory.stat"), "inactive_file 100\n").unwrap();
    assert_eq!(level(&root, MemoryLimit::Auto), Some(Level::NobodyNew));
    assert_eq!(level(&root, MemoryLimit::Off), None);
    assert_eq!(level(&root, MemoryLimit::Bytes(1000 * MIB)), Some(Level::Enough), "the file's word counts");
    assert_eq!(level(&root, MemoryLimit::Bytes(MIB)), Some(Level::NewestLeave));
}

#[test]
fn the_group_above_may_be_the_one_that_is_full() {
    let root = root(&[
        ("proc/self/cgroup", "0::/pod/container\n"),
        ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
        ("sys/fs/cgroup/pod/container/memory.current", "1000\n"),
        ("sys/fs/cgroup/pod/container/memory.stat", "inactive_file 0\n"),
        ("sys/fs/cgroup/pod/memory.max", "1000000\n"),
        ("sys/fs/cgroup/pod/memory.current", "980000\n"),
        ("sys/fs/cgroup/pod/memory.stat", "inactive_file 0\n"),
    ]);
    assert_eq!(level(&root, MemoryLimit::Auto), Some(Level::NewestLeave));
    assert_eq!(Watched::below(root.path(), MemoryLimit::Auto).unwrap().limit(), 1_000_000);
}

#[test]
fn version_1_is_read_where_the_memory_controller_is_there() {
    let files = |limit| {
        root(&[
            ("proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "900\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 0\ntotal_inactive_file 20\n"),
        ])
    };
    // The path is that of the host: here the mount's root is the group.
    assert_eq!(level(&files("1000\n"), MemoryLimit::Auto), Some(Level::NothingNewIsHeld));
    assert_eq!(level(&files("9223372036854771712\n"), MemoryLimit::Auto), None, "no limit");
}

#[test]
fn without_control_groups_a_limit_counts_the_process_itself() {
    let root = root(&[("proc/self/status", "Name:\tcqlgate\nVmRSS:\t   96000 kB\nThreads:\t3\n")]);
    assert_eq!(level(&root, MemoryLimit::Auto), None);
    assert_eq!(level(&root, MemoryLimit::Bytes(100 * MIB)), Some(Level::NobodyNew));
}

#[test]
fn what_follows_is_undone_when_there_is_memory_again() {
    let (memory, budget, metrics) = (Memory::default(), HoldBudget::new(1 << 20), Metrics::new());
    let mut share = None;
    for (level, takes, holds) in [
        (Level::Enough, true, true),
        (Level::NothingNewIsHeld, true, false),
        (Level::NobodyNew, false, false),
        (Level::NewestLeave, false, false),
        (Level::Enough, true, true),
    ] {
        memory.apply(level, &budget, &metrics);
        assert_eq!((memory.takes_connections(), budget.grow(&mut share, 1, false)), (takes, holds), "{level:?}");
        assert_eq!(metrics.memory_level.get(), i64::from(level as u8));
        share = None;
    }
}

#[test]
fn the_newest_leave_first() {
    let connections = Connections::new(&crate::config::Limits::default());
    let places: Vec<_> = (0..40).map(|_| connections.enter(9042, 1, Source::V4(1)).unwrap()).collect();
    close_newest(&connections);
    let leave = places.iter().map(|place| place.handle().order() == Order::Shed);
    assert_eq!(leave.collect::<Vec<_>>(), [vec![false; 37], vec![true; 3]].concat());
}
