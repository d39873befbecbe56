//! Files of settings that are followed: saved, cut off, replaced by anything, and by panics.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tower_keep::{
    Changed,
    settings::{
        self, Alone, BulkheadSettings, CircuitBreakerSettings, ClientSettings, HedgeSettings,
        RateLimitSettings, Reload, ReloadError, RetrySettings, ServerSettings, Settings,
        ThrottleSettings, TimeoutSettings, Watch, watch,
    },
    stack::{self, ClientHandle},
    timeout::{TimeoutHandle, TimeoutLayer},
};

use crate::files::{client, read};

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let process = std::process::id();
        let folder = std::env::temp_dir().join(format!("tower-keep-{name}-{process}"));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("timeout.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Told = Receiver<Result<Changed, ReloadError>>;

fn following(folder: &Folder) -> (TimeoutHandle, Told, Watch) {
    let parse = |text: &str| -> Result<TimeoutSettings, tower::BoxError> {
        Ok(settings::read(toml::Deserializer::parse(text)?)?)
    };
    let settings = parse(&fs::read_to_string(folder.file()).unwrap()).unwrap();
    let layer: TimeoutLayer = settings.builder().unwrap().build().unwrap();
    let (tell, told) = mpsc::channel();
    let reload = Reload::new(layer.handle(), settings);
    let watch = watch(folder.file(), parse, reload, move |result| {
        tell.send(result).unwrap();
    });
    (layer.handle(), told, watch.unwrap())
}

fn next(told: &Told) -> Result<Changed, ReloadError> {
    told.recv_timeout(Duration::from_secs(8)).unwrap()
}

fn seconds(handle: &TimeoutHandle) -> u64 {
    handle.snapshot().duration.as_secs()
}

#[test]
fn a_file_is_followed_however_it_is_written() {
    let folder = Folder::new("followed");
    fs::write(folder.file(), "duration = '1s'").unwrap();
    let (handle, told, watch) = following(&folder);

    fs::write(folder.file(), "duration = '2s'").unwrap();
    next(&told).unwrap();
    assert_eq!(seconds(&handle), 2);

    fs::write(folder.file(), "duration = '3").unwrap();
    let error = next(&told).unwrap_err().to_string();
    assert!(error.contains("timeout.toml: "), "{error}");
    fs::write(folder.file(), "duration = '0s'").unwrap();
    let error = next(&told).unwrap_err().to_string();
    assert!(error.contains("duration"), "{error}");
    fs::remove_file(folder.file()).unwrap();
    next(&told).unwrap_err();
    assert_eq!(seconds(&handle), 2);

    // As editors do.
    fs::write(folder.0.join("new"), "duration = '4s'").unwrap();
    fs::rename(folder.0.join("new"), folder.file()).unwrap();
    next(&told).unwrap();
    assert_eq!(seconds(&handle), 4);

    drop(watch);
    // The thread ends, and its sender with it.
    let end = told.recv_timeout(Duration::from_secs(8));
    assert_eq!(end.unwrap_err(), mpsc::RecvTimeoutError::Disconnected);
}

#[cfg(unix)]
#[test]
fn a_link_that_is_set_anew_is_followed() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new("linked");
    for version in ["1", "2"] {
        fs::create_dir(folder.0.join(version)).unwrap();
        let text = format!("duration = '{version}s'");
        fs::write(folder.0.join(version).join("timeout.toml"), text).unwrap();
    }
    symlink("1", folder.0.join("data")).unwrap();
    symlink("data/timeout.toml", folder.file()).unwrap();
    let (handle, told, _watch) = following(&folder);

    symlink("2", folder.0.join("new")).unwrap();
    fs::rename(folder.0.join("new"), folder.0.join("data")).unwrap();
    next(&told).unwrap();
    assert_eq!(seconds(&handle), 2);
}

#[test]
fn what_changed_before_the_watch_is_found() {
    let folder = Folder::new("before");
    fs::write(folder.file(), "duration = '1s'").unwrap();
    let settings: TimeoutSettings = read("duration = '5s'").unwrap();
    let layer: TimeoutLayer = settings.builder().unwrap().build().unwrap();
    let (tell, told) = mpsc::channel();
    let parse = |text: &str| Ok(read(text)?);
    let reload = Reload::new(layer.handle(), settings);
    let _watch = watch(folder.file(), parse, reload, move |result| {
        tell.send(result).unwrap();
    });
    next(&told).unwrap();
    assert_eq!(seconds(&layer.handle()), 1);
}

#[test]
fn a_folder_that_does_not_exist_is_an_error() {
    let settings: TimeoutSettings = read("duration = '1s'").unwrap();
    let layer: TimeoutLayer = settings.builder().unwrap().build().unwrap();
    let reload = Reload::new(layer.handle(), settings);
    let parse = |text: &str| Ok(read::<TimeoutSettings>(text)?);
    watch("/nowhere/at/all.toml", parse, reload, |_| {}).unwrap_err();
}

/// Waits for what the watch does, for as long as that takes, and then some.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let (_never, tick) = mpsc::channel::<()>();
    for _ in 0..800 {
        if is_so() {
            return;
        }
        let _ = tick.recv_timeout(Duration::from_millis(10));
    }
    panic!("not {what}");
}

/// A client's stack that follows a file with this text.
fn stack_following(folder: &Folder, text: &str) -> (ClientHandle, Told, Watch) {
    fs::write(folder.file(), text).unwrap();
    let settings = client(text);
    let stack = settings.apply_to(stack::client().http()).unwrap();
    let handle = stack.build().unwrap().handle();
    let (tell, told) = mpsc::channel();
    let parse = |text: &str| Ok(settings::read(toml::Deserializer::parse(text)?)?);
    let reload = Reload::new(handle.clone(), settings);
    let watch = watch(folder.file(), parse, reload, move |result| {
        let _ = tell.send(result);
    });
    (handle, told, watch.unwrap())
}

/// Half a second after the file was emptied a running stack had 100 places and 3 s.
#[test]
fn a_file_that_is_just_being_saved_changes_nothing() {
    let folder = Folder::new("saved");
    let text = "attempt_timeout = '1s'\nmax_in_flight = 7\n[retry]\nattempts = 2\n";
    let (handle, told, watch) = stack_following(&folder, text);
    let shown = || {
        let snapshot = handle.snapshot();
        let attempts = handle.retry.config().attempts;
        (
            snapshot.attempt_timeout.duration.as_secs(),
            snapshot.bulkheads[0].1.limit,
            attempts,
        )
    };
    for (cut_off, why) in [
        ("", "it is empty"),
        ("# settings of payments\n", "it is empty"),
        (
            "attempt_timeout = '1s'\n",
            "`max_in_flight` was in the file",
        ),
        (
            "attempt_timeout = '1s'\nmax_in_flight = 7\n[retry]",
            "`retry.attempts` was in the file",
        ),
        (
            "attempt_timeout = '1s'\nmax_in_flight = 7\n",
            "`retry` was in the file",
        ),
        ("attempt_timeout = '1s'\nmax_in", "expected `=`"),
    ] {
        fs::write(folder.file(), cut_off).unwrap();
        let error = next(&told).unwrap_err().to_string();
        assert!(error.contains(why), "{cut_off}: {error}");
        assert_eq!(shown(), (1, 7, 2), "{cut_off}");
    }
    assert!(watch.handle().snapshot().failing);

    fs::write(folder.file(), text.replace('7', "8")).unwrap();
    next(&told).unwrap();
    assert_eq!(shown(), (1, 8, 2));
    // Its default, written or left out on purpose.
    fs::write(folder.file(), text.replace('7', "100")).unwrap();
    next(&told).unwrap();
    assert_eq!(shown(), (1, 100, 2));
    fs::write(folder.file(), "partial = true\nmax_in_flight = 100").unwrap();
    next(&told).unwrap();
    assert_eq!(shown(), (3, 100, 3));
    assert!(!watch.handle().snapshot().failing);
}

/// A writer's pause was taken for its end.
#[cfg(target_os = "linux")]
#[test]
fn a_file_is_taken_once_its_writer_has_closed_it() {
    let folder = Folder::new("open");
    fs::write(folder.file(), "duration = '1s'").unwrap();
    let (handle, told, watch) = following(&folder);
    let reads = || watch.handle().snapshot().reads;
    until("taken", || watch.handle().snapshot().last_good.is_some());
    let before = reads();

    let mut file = File::create(folder.file()).unwrap();
    file.write_all(b"duration = '2s'").unwrap();
    until("read again", || reads() >= before + 2);
    assert_eq!(
        told.recv_timeout(Duration::from_millis(500)).unwrap_err(),
        RecvTimeoutError::Timeout
    );
    assert_eq!(seconds(&handle), 1);
    file.write_all(b"\n# the end").unwrap();
    drop(file);
    next(&told).unwrap();
    assert_eq!(seconds(&handle), 2);
}

/// For each type, and each of its fields.
#[test]
fn each_field_that_vanishes_is_an_error() {
    fn check<S>(full: &str)
    where
        S: Settings + serde::de::DeserializeOwned + Clone,
    {
        let lost = |before: &S, text: &str| read::<S>(text).unwrap().lost_since(before);
        let all: S = read(full).unwrap();
        assert_eq!(lost(&all, full), None, "{full}");
        let lines: Vec<_> = full.lines().collect();
        for left_out in 0..lines.len() {
            let mut rest = lines.clone();
            let field = rest.remove(left_out).split(' ').next().unwrap();
            let rest = rest.join("\n");
            assert_eq!(lost(&all, &rest).as_deref(), Some(field), "{full}");
            assert_eq!(lost(&all, &format!("partial = true\n{rest}")), None);
            // What comes in is no loss.
            assert_eq!(lost(&read(&rest).unwrap(), full), None);
        }
        // Nothing is known of what was not read, nor lost by it.
        assert!(lost(&all, "").is_some());
    }
    check::<TimeoutSettings>("duration = '1s'\ntotal = true\nname = 'a'");
    check::<HedgeSettings>("delay = '1s'\nmax_hedges = 2\nbudget = 'off'");
    check::<ThrottleSettings>("multiplier = 2\nwindow = '2m'\nmin_calls = 20");
    #[cfg(feature = "fault")]
    check::<tower_keep::settings::FaultSettings>("max_active = 9\nenabled = false\nshadow = true");
    check::<RateLimitSettings>("rate = '1/s'\nburst = 1\nmax_wait = '1s'\nadvertise = true");
    check::<BulkheadSettings>("limit = 1\nmax_wait = '1s'\nshed_above = { sheddable = '50%' }");
    check::<RetrySettings>("attempts = 3\nmax_retry_after = '10s'\nbackoff = {}");
    check::<CircuitBreakerSettings<Alone>>("min_calls = 20\nfailure_rate = 'off'\nprobes = 3");
    check::<ServerSettings>("rate = '1/s'\nmax_in_flight = 9\ntimeout = 'off'");
    check::<ClientSettings>("rate = '1/s'\nretry = 'off'\ntotal_timeout = '9s'");

    // Of parts too, unless they are off, or partial themselves.
    let before = client("retry.backoff = { base = '1s', max = '2s' }\ncircuit_breaker.probes = 2");
    let lost = |text: &str| client(text).lost_since(&before);
    let circuit = "circuit_breaker.probes = 2";
    for (retry, field) in [
        ("retry.backoff.max = '2s'", Some("retry.backoff.base")),
        ("retry = {}", Some("retry.backoff")),
        ("", Some("retry")),
        ("retry = 'off'", None),
        ("retry = { partial = true }", None),
        ("retry = { partial = false }", Some("retry.backoff")),
    ] {
        assert_eq!(
            lost(&format!("{circuit}\n{retry}")).as_deref(),
            field,
            "{retry}"
        );
    }
    let other = "circuit_breaker = { partial = true }\nretry.attempts = 2";
    assert_eq!(lost(other).as_deref(), Some("retry.backoff"));
    // Whatever reads them, and whatever they are a part of.
    let parts: std::collections::BTreeMap<String, ClientSettings> =
        serde_json::from_str(r#"{ "a": { "burst": 1 }, "b": { "name": "b" } }"#).unwrap();
    assert_eq!(parts["a"].lost_since(&parts["b"]).as_deref(), Some("name"));
}

/// Each reading opened the file, which was an event, and was followed by the next reading.
#[test]
fn an_untouched_file_is_not_read_over_and_over() {
    let folder = Folder::new("untouched");
    fs::write(folder.file(), "duration = '1s'").unwrap();
    let (_, told, watch) = following(&folder);
    let reads = || watch.handle().snapshot().reads;
    until("taken", || watch.handle().snapshot().last_good.is_some());
    for number in 0..20 {
        fs::write(folder.0.join(format!("other-{number}")), "text").unwrap();
        fs::read(folder.file()).unwrap();
    }
    assert_eq!(
        told.recv_timeout(Duration::from_secs(1)).unwrap_err(),
        RecvTimeoutError::Timeout
    );
    assert_eq!(reads(), 2);
}

#[test]
fn a_panic_of_the_users_code_ends_no_watch() {
    let folder = Folder::new("panics");
    fs::write(folder.file(), "duration = '1s'").unwrap();
    let settings: TimeoutSettings = read("duration = '1s'").unwrap();
    let layer: TimeoutLayer = settings.builder().unwrap().build().unwrap();
    let reload = Reload::new(layer.handle(), settings);
    let parse = |text: &str| {
        assert!(!text.contains("13s"), "an unlucky number");
        Ok(read(text)?)
    };
    let (tell, told) = mpsc::channel();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let watch = watch(folder.file(), parse, reload, move |result| {
        let _ = tell.send(result);
        assert!(!failing.load(Ordering::Relaxed), "no room for the report");
    });
    let watch = watch.unwrap();

    fs::write(folder.file(), "duration = '13s'").unwrap();
    let error = next(&told).unwrap_err().to_string();
    assert!(error.contains("a panic: an unlucky number"), "{error}");
    fails.store(true, Ordering::Relaxed);
    fs::write(folder.file(), "duration = '14s'").unwrap();
    next(&told).unwrap();
    until("told", || {
        let last = watch.handle().snapshot().last_error;
        last.is_some_and(|last| last.error.contains("no room for the report"))
    });
    fails.store(false, Ordering::Relaxed);
    fs::write(folder.file(), "duration = '15s'").unwrap();
    next(&told).unwrap();
    assert_eq!(seconds(&layer.handle()), 15);
    assert!(watch.handle().is_alive());
}

#[cfg(unix)]
#[test]
fn what_is_no_file_of_settings_blocks_no_watch() {
    use std::{os::unix::fs::symlink, process::Command};

    let folder = Folder::new("no-file");
    fs::write(folder.file(), "duration = '1s'").unwrap();
    let (handle, told, _watch) = following(&folder);
    let place = |path: &str| fs::rename(folder.0.join(path), folder.file()).unwrap();

    let pipe = folder.0.join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    place("pipe");
    let error = next(&told).unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");

    fs::write(folder.0.join("large"), " ".repeat(1 << 21)).unwrap();
    place("large");
    let error = next(&told).unwrap_err().to_string();
    assert!(error.contains("longer than 1 MiB"), "{error}");

    fs::write(folder.0.join("bytes"), [0xff, 0xfe]).unwrap();
    place("bytes");
    let error = next(&told).unwrap_err().to_string();
    assert!(error.contains("no UTF-8"), "{error}");

    symlink("/dev/zero", folder.0.join("device")).unwrap();
    place("device");
    let error = next(&told).unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");

    fs::write(folder.0.join("good"), "duration = '2s'").unwrap();
    place("good");
    next(&told).unwrap();
    assert_eq!(seconds(&handle), 2);
}

#[test]
fn how_a_watch_is_doing_can_be_asked() {
    let folder = Folder::new("asked");
    fs::write(folder.file(), "duration = '1s'").unwrap();
    let own = tower_keep::observe::Registry::new();
    let (_, told, watch) = own.with(|| following(&folder));
    let handle = watch.handle();
    until("read", || handle.snapshot().last_good.is_some());
    let snapshot = handle.snapshot();
    assert!(snapshot.alive && !snapshot.failing && snapshot.last_error.is_none());

    fs::write(folder.file(), "duration = 1").unwrap();
    next(&told).unwrap_err();
    let snapshot = handle.snapshot();
    assert!(snapshot.failing);
    let error = snapshot.last_error.unwrap().error;
    assert!(error.contains("`duration`"), "{error}");
    fs::write(folder.file(), "duration = '2s'").unwrap();
    next(&told).unwrap();
    let snapshot = handle.snapshot();
    assert!(!snapshot.failing && snapshot.last_error.is_some());
    assert_eq!((snapshot.changes, snapshot.errors), (1, 1));

    let instances = own.snapshot();
    let named = instances
        .iter()
        .find(|one| one.layer == "settings")
        .unwrap();
    assert_eq!(named.name, "timeout.toml");
    drop(watch);
    until("ended", || !handle.is_alive());
}
