//! The command line without a daemon: exit codes, what goes where, and what a refusal says.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const SIZE: u64 = 1 << 20;

/// Everything that can be typed in this release.
const COMMANDS: &[&str] = &[
    "demo",
    "identity",
    "init",
    "run",
    "witness",
    "status",
    "events",
    "promote",
    "demote",
    "switchover",
    "connect",
    "disconnect",
    "pause-resync",
    "resume-resync",
    "verify",
    "invalidate",
    "split-brain",
    "sync",
    "generations",
    "rollback",
    "explain",
    "resize",
    "check",
    "config",
    "completions",
];

/// A folder with a configuration and what it names.
struct Home {
    folder: TempDir,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hotpair-").tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let home = Self { folder };
        home.configure(&home.text());
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) -> String {
        let at = self.folder.path().display();
        format!(
            "cluster = \"office\"\n\
             [link]\nencryption = \"none\"\n\
             [node.alpha]\nreplication = \"127.0.0.1:7788\"\n\
             state_dir = \"{at}/alpha\"\ncontrol = \"{at}/alpha.sock\"\n\
             [node.beta]\nreplication = \"127.0.0.2:7788\"\n\
             state_dir = \"{at}/beta\"\ncontrol = \"{at}/beta.sock\"\n\
             [resource.vm1]\nkind = \"block\"\npath = \"{at}/alpha.img\"\nsize = \"1MiB\"\n\
             export = \"unix:{at}/alpha.nbd\"\n\
             [resource.vm1.on.beta]\npath = \"{at}/beta.img\"\nexport = \"unix:{at}/beta.nbd\"\n"
        )
    }

    fn configure(&self, text: &str) {
        let path = self.path("hotpair.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = command(words);
        command.env("HOTPAIR_CONFIG", self.path("hotpair.toml"));
        command
    }

    /// Types a command as on node alpha.
    fn say(&self, words: &[&str]) -> Said {
        said(self.command(words).args(["--node", "alpha"]).output().unwrap())
    }

    fn well(&self, words: &[&str]) -> Said {
        let said = self.say(words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        said
    }

    /// Types a command that must fail with a reason and a way out.
    fn refused(&self, words: &[&str], code: i32) -> String {
        let said = self.say(words);
        assert_eq!(said.code, Some(code), "{words:?}: {said:?}");
        assert_eq!(said.stdout, "", "{words:?}");
        let lines: Vec<&str> = said.stderr.lines().collect();
        let why =
            lines.iter().find(|line| line.starts_with("refused: ") || line.starts_with("error: "));
        let next = lines.iter().find(|line| line.trim_start().starts_with("next: "));
        assert!(why.is_some() && next.is_some(), "{words:?}: {}", said.stderr);
        said.stderr
    }

    /// Types `config check` with this configuration, which must be refused at `line`.
    fn wrong(&self, text: &str, line: usize) -> String {
        self.configure(text);
        let said = self.say(&["config", "check"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert_eq!(said.stdout, "");
        let place = format!("{}:{line}:", self.path("hotpair.toml").display());
        assert!(said.stderr.contains(&place), "not at line {line}: {}", said.stderr);
        assert!(said.stderr.contains("help: "), "{}", said.stderr);
        said.stderr
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotpair"));
    command.args(words).env_remove("HOTPAIR_CONFIG").stdin(Stdio::null());
    command
}

fn say(words: &[&str]) -> Said {
    said(command(words).output().unwrap())
}

fn said(output: Output) -> Said {
    let said = Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!said.stderr.contains("panicked"), "{said:?}");
    assert!(!said.stdout.contains('\u{1b}') && !said.stderr.contains('\u{1b}'), "{said:?}");
    said
}

/// `text` with the line that starts with `key` replaced; and the number of that line.
fn with_line(text: &str, key: &str, line: &str) -> (String, usize) {
    let at = text.lines().position(|found| found.starts_with(key)).unwrap();
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, found)| if index == at { line } else { found });
    (lines.collect::<Vec<_>>().join("\n") + "\n", at + 1)
}

#[test]
fn help_names_every_command_and_explains_each() {
    let help = say(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for name in COMMANDS {
        let is_listed =
            help.stdout.lines().any(|line| line.trim().starts_with(&format!("{name} ")));
        assert!(is_listed, "{name} is not in the help");
        let help = say(&[name, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{name}");
        assert!(help.stdout.contains(&format!("Usage: hotpair {name}")), "{}", help.stdout);
        assert!(help.stdout.contains("--config <FILE>"), "{}", help.stdout);
    }
    let version = say(&["--version"]);
    assert_eq!(version.stdout, format!("hotpair {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_no_command_is_usage() {
    let home = Home::new();
    for words in [
        &[][..],
        &["promot", "vm1"],
        &["promote"],
        &["promote", "vm1", "--force"],
        &["promote", "vm1", "--accept-data-loss"],
        &["promote", "../vm1"],
        &["init", "vm1"],
        &["init", "vm1", "--from", "there"],
        &["resize", "vm1", "--size", "20GB"],
        &["check"],
        &["sync", "vm1"],
        &["sync", "vm1", "--wait", "--timeout", "5"],
        &["generations"],
        &["rollback", "vm1"],
        &["rollback", "vm1", "--to", "last"],
        &["split-brain", "resolve", "vm1"],
        &["completions", "cobol"],
        &["run", "--log", "loud"],
        &["status", "--frobnicate"],
    ] {
        let said = home.say(words);
        assert_eq!(said.code, Some(2), "{words:?}: {said:?}");
        assert_eq!(said.stdout, "", "{words:?}");
        assert!(said.stderr.contains("--help"), "{}", said.stderr);
    }
}

#[test]
fn without_a_daemon_nothing_is_reachable() {
    let home = Home::new();
    for words in [
        &["status"][..],
        &["status", "--json", "--watch"],
        &["events"],
        &["promote", "vm1"],
        &["promote", "vm1", "--force", "--peer-is-fenced", "--accept-data-loss"],
        &["demote", "vm1"],
        &["switchover", "vm1"],
        &["connect", "vm1"],
        &["disconnect", "vm1"],
        &["pause-resync", "vm1"],
        &["resume-resync", "vm1"],
        &["resume-resync", "vm1", "--accept-deletes", "700"],
        &["sync", "vm1", "--wait"],
        &["sync", "vm1", "--wait", "--freeze", "--timeout", "5s"],
        &["generations", "vm1"],
        &["generations", "vm1", "--json"],
        &["rollback", "vm1", "--to", "3"],
        &["verify", "vm1"],
        &["invalidate", "vm1"],
        &["split-brain", "show", "vm1"],
        &["split-brain", "resolve", "vm1", "--keep", "beta"],
        &["explain", "vm1"],
    ] {
        let text = home.refused(words, 3);
        assert!(text.contains("alpha.sock") && text.contains("hotpair run"), "{text}");
    }
}

#[test]
fn a_daemon_that_goes_away_before_it_answers_is_not_reachable() {
    let home = Home::new();
    let listener = UnixListener::bind(home.path("alpha.sock")).unwrap();
    let silent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 1]).unwrap() > 0);
    });
    let text = home.refused(&["status"], 3);
    assert!(text.contains("went away"), "{text}");
    silent.join().unwrap();
}

#[test]
fn a_sync_that_takes_longer_than_its_limit_is_refused() {
    let home = Home::new();
    let listener = UnixListener::bind(home.path("alpha.sock")).unwrap();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let len = stream.read(&mut request).unwrap();
        // It answers nothing, until whoever asks goes away.
        while stream.read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
        String::from_utf8_lossy(&request[..len]).into_owned()
    });
    let text = home.refused(&["sync", "vm1", "--wait", "--timeout", "100ms"], 1);
    assert!(text.contains("beta does not have it yet after 100ms"), "{text}");
    assert!(text.contains("next: the node goes on with it: hotpair status vm1"), "{text}");
    assert!(asked.join().unwrap().starts_with("POST /api/v1/resources/vm1/sync "));
}

#[test]
fn something_else_at_the_socket_is_a_failure() {
    let home = Home::new();
    let listener = UnixListener::bind(home.path("alpha.sock")).unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).unwrap() > 0);
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let text = home.refused(&["status"], 1);
    assert!(text.contains("speaks differently"), "{text}");
    stranger.join().unwrap();
}

#[test]
fn commands_of_later_stages_are_refused_by_name() {
    let home = Home::new();
    for (words, stage) in [
        (&["scrub", "vm1"][..], "integrity"),
        (&["top"], "trust"),
        (&["resume-resync", "vm1", "--without-undo"], "integrity"),
    ] {
        let mut words = words.to_vec();
        // What follows the name of such a command is not looked at.
        words.splice(0..0, ["--node", "alpha"]);
        let said = said(home.command(&words).output().unwrap());
        assert_eq!(said.code, Some(1), "{said:?}");
        let sentence = format!("comes with the stage \"{stage}\"");
        assert!(said.stderr.contains(&sentence), "{words:?}: {}", said.stderr);
        assert!(said.stderr.contains("next: "), "{words:?}: {}", said.stderr);
    }
}

#[test]
fn a_right_configuration_is_said_to_be_one() {
    let home = Home::new();
    let said = home.well(&["config", "check"]);
    assert!(said.stdout.contains("correct: cluster office, nodes alpha and beta, vm1"), "{said:?}");
    // A risk that was accepted by name is still said.
    assert!(said.stderr.contains("warning: replication is neither encrypted"), "{said:?}");
}

#[test]
fn what_is_wrong_with_a_configuration_is_shown_at_its_line() {
    let home = Home::new();
    let good = home.text();
    for (key, line, word) in [
        ("size", "size = \"1MB\"", "MiB"),
        ("size", "sise = \"1MiB\"", "sise"),
        ("kind", "kind = \"folder\"", "\"directory\""),
        ("cluster", "cluster = office", "expected"),
        ("[node.beta]", "[node.alpha]", "duplicate key"),
        ("[resource.vm1.on.beta]", "[resource.vm1.on.gamma]", "gamma"),
        ("encryption", "encryption = \"rot13\"", "rot13"),
    ] {
        let (text, line) = with_line(&good, key, line);
        let shown = home.wrong(&text, line);
        assert!(shown.contains(word), "{shown}");
    }
    let line = good.lines().count() + 3;
    let text = format!("{good}[heartbeat]\ninterval = \"1s\"\nsuspect_after = \"2s\"\n");
    assert!(home.wrong(&text, line).contains("4s"));
}

#[cfg(feature = "directory")]
#[test]
fn a_directory_can_be_configured_and_its_patterns_are_read() {
    let home = Home::new();
    let at = home.path("tree").display().to_string();
    let with = |exclude: &str| {
        let tree = format!("[resource.up]\nkind = \"directory\"\npath = \"{at}\"\n");
        let other = format!("[resource.up.on.beta]\npath = \"{at}-of-beta\"\n");
        format!("{}{tree}exclude = [{exclude}]\n{other}", home.text())
    };
    home.configure(&with(r#""*.tmp", "/cache/**", "[ab]c""#));
    let said = home.well(&["config", "check"]);
    assert!(said.stdout.contains("nodes alpha and beta, up, vm1"), "{said:?}");
    home.configure(&with(r#""*.tmp", "a[""#));
    let said = home.say(&["config", "check"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("[resource.up]: exclude has \"a[\""), "{}", said.stderr);
    assert!(said.stderr.contains("next: correct the pattern"), "{}", said.stderr);
}

#[test]
fn every_mistake_is_shown_at_once() {
    let home = Home::new();
    let (text, first) = with_line(&home.text(), "size", "size = \"17TiB\"");
    let (text, second) = with_line(&text, "replication", "replication = \"127.0.0.2:7788\"");
    let shown = home.wrong(&text, first);
    assert!(second < first && shown.matches("error: ").count() >= 2, "{shown}");
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let home = Home::new();
    fs::set_permissions(home.path("hotpair.toml"), Permissions::from_mode(0o666)).unwrap();
    let said = home.say(&["config", "check"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("0666") && said.stderr.contains("chmod"), "{}", said.stderr);
    let missing = home.path("nothing.toml");
    let said = say(&["config", "check", "--config", missing.to_str().unwrap()]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("nothing.toml") && said.stderr.contains("--config"), "{said:?}");
}

#[test]
fn a_node_is_one_of_the_configuration() {
    let home = Home::new();
    let said = said(home.command(&["status", "--node", "gamma"]).output().unwrap());
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("alpha and beta"), "{}", said.stderr);
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = say(&["completions", shell]);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
        for word in ["switchover", "split-brain", "peer-is-fenced"] {
            assert!(said.stdout.contains(word), "{shell}: no {word}");
        }
    }
}

#[test]
fn a_closed_pipe_is_success() {
    let home = Home::new();
    for words in [&["completions", "bash"][..], &["config", "check"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = home.command(words);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let said = said(child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        assert!(!said.stderr.contains("error"), "{words:?}: {said:?}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn an_identity_is_made_once_and_printed_the_same() {
    let home = Home::new();
    let state_dir = home.path("keys/state");
    let words = ["identity", "--state-dir", state_dir.to_str().unwrap()];
    let first = say(&words);
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first:?}");
    assert!(first.stdout.starts_with("sha256//") && first.stdout.lines().count() == 1, "{first:?}");
    assert_eq!(say(&words).stdout, first.stdout);
    let files: Vec<_> = fs::read_dir(&state_dir).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&state_dir).unwrap().permissions().mode() & 0o777, 0o700);
}

/// Whoever asks for the fingerprint has yet to write it into that very file.
#[cfg(feature = "tls")]
#[test]
fn an_identity_is_found_although_the_configuration_lacks_it() {
    let home = Home::new();
    home.configure(&home.text().replace("encryption = \"none\"\n", ""));
    assert_eq!(home.say(&["config", "check"]).code, Some(1));
    let printed = home.well(&["identity"]).stdout;
    let state_dir = home.path("alpha");
    let there = say(&["identity", "--state-dir", state_dir.to_str().unwrap()]).stdout;
    assert_eq!(printed, there);

    // Nor does what stands there until then matter.
    let unfinished = home.text().replace("state_dir", "identity = \"sha256//..\"\nstate_dir");
    home.configure(&unfinished);
    assert_eq!(home.say(&["config", "check"]).code, Some(1));
    assert_eq!(home.well(&["identity"]).stdout, printed);
    home.configure(&home.text().replace("state_dir", "statedir"));
    assert_eq!(home.say(&["identity"]).code, Some(1));
}

#[cfg(feature = "tls")]
#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let home = Home::new();
    home.well(&["identity"]);
    let key = home.path("alpha/identity.pem");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let text = home.refused(&["identity"], 1);
    assert!(text.contains(&format!("chmod 600 {}", key.display())), "{text}");
}

#[cfg(not(feature = "_tls"))]
#[test]
fn a_build_without_keys_says_so() {
    let home = Home::new();
    let state_dir = home.path("keys");
    let said = say(&["identity", "--state-dir", state_dir.to_str().unwrap()]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("has no TLS"), "{said:?}");
}

#[test]
fn init_says_what_it_does_and_is_done_once() {
    let home = Home::new();
    let said = home.well(&["init", "vm1", "--from", "empty"]);
    assert!(said.stderr.contains("alpha.img is made"), "{said:?}");
    assert_eq!(fs::metadata(home.path("alpha.img")).unwrap().len(), SIZE);
    let superblock = fs::read(home.path("alpha/vm1/superblock")).unwrap();

    let text = home.refused(&["init", "vm1", "--from", "empty"], 1);
    assert!(text.contains("nothing was changed") && text.contains("--rebuild"), "{text}");
    assert_eq!(fs::read(home.path("alpha/vm1/superblock")).unwrap(), superblock);

    let said = home.well(&["init", "vm1", "--from", "this", "--rebuild"]);
    assert!(said.stderr.contains("made anew"), "{said:?}");
    assert_ne!(fs::read(home.path("alpha/vm1/superblock")).unwrap(), superblock);
}

#[test]
fn a_metadata_folder_that_others_can_enter_is_warned_of() {
    let home = Home::new();
    home.well(&["init", "vm1", "--from", "empty"]);
    let folder = home.path("alpha/vm1");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let shown = folder.display();
    let said = home.well(&["config", "check"]);
    assert!(!said.stderr.contains("chmod"), "{said:?}");
    for (mode, can) in [(0o755, "look into"), (0o777, "remove files from")] {
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        let said = home.well(&["config", "check"]);
        let warning = format!("warning: others can {can} {shown} (mode {mode:04o})");
        assert!(said.stderr.contains(&warning), "{said:?}");
        assert!(said.stderr.contains(&format!("chmod 700 {shown}")), "{said:?}");
    }
    // Who is none of the nodes is not told of their folders.
    let output = home.command(&["config", "check", "--node", "gamma"]).output().unwrap();
    assert!(!String::from_utf8(output.stderr).unwrap().contains("chmod"));
}

#[test]
fn init_takes_nothing_for_empty_that_is_not() {
    let home = Home::new();
    let mut image = vec![0; usize::try_from(SIZE).unwrap()];
    image[777_777] = 1;
    fs::write(home.path("alpha.img"), &image).unwrap();
    let text = home.refused(&["init", "vm1", "--from", "empty"], 1);
    assert!(text.contains("777777") && text.contains("--from this"), "{text}");
    assert!(!home.path("alpha/vm1/superblock").exists());
    home.well(&["init", "--from", "this"]);
    assert_eq!(fs::read(home.path("alpha.img")).unwrap(), image);
}

#[test]
fn init_refuses_a_file_that_is_not_there_or_does_not_fit() {
    let home = Home::new();
    let text = home.refused(&["init", "vm1", "--from", "this"], 1);
    assert!(text.contains("alpha.img"), "{text}");
    fs::write(home.path("alpha.img"), [0; 1000]).unwrap();
    let text = home.refused(&["init", "vm1", "--from", "this"], 1);
    assert!(text.contains("1000 bytes"), "{text}");
    fs::remove_file(home.path("alpha.img")).unwrap();
    let folder = home.path("nowhere");
    home.configure(&home.text().replace("alpha.img", "nowhere/alpha.img"));
    let text = home.refused(&["init", "vm1", "--from", "peer"], 1);
    assert!(text.contains(&format!("mkdir -p {}", folder.display())), "{text}");
    assert!(!text.contains("is made") && !home.path("alpha/vm1").exists(), "{text}");
    fs::create_dir(folder).unwrap();
    home.well(&["init", "vm1", "--from", "peer"]);
    let text = home.refused(&["init", "vm2", "--from", "this"], 1);
    assert!(text.contains("vm2") && text.contains("it has vm1"), "{text}");
}

/// What may not be looked at is not absent: else the way out would be to make it anew.
#[test]
fn what_cannot_be_seen_does_not_count_as_absent() {
    let home = Home::new();
    home.well(&["init", "vm1", "--from", "empty"]);
    // Even root cannot look behind a file, or at a name that is too long.
    for (key, path) in [("state_dir", "alpha.img/in"), ("path", &"x".repeat(300))] {
        let line = home.text().lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        let other = format!("{key} = \"{}\"", home.path(path).display());
        home.configure(&home.text().replace(&line, &other));
        for words in [&["check", "--offline"][..], &["run"], &["init", "vm1", "--from", "empty"]] {
            let text = home.refused(words, 1);
            assert!(!text.contains("hotpair init"), "{words:?}: {text}");
        }
    }
}

#[test]
fn a_daemon_without_metadata_says_how_to_make_it() {
    let home = Home::new();
    let text = home.refused(&["run"], 1);
    assert!(text.contains("hotpair init vm1"), "{text}");
}

#[test]
fn check_offline_finds_what_is_good_and_what_is_not() {
    let home = Home::new();
    let text = home.refused(&["check", "vm1", "--offline"], 1);
    assert!(text.contains("hotpair init vm1"), "{text}");
    home.well(&["init", "vm1", "--from", "empty"]);
    let said = home.well(&["check", "--offline"]);
    assert!(said.stdout.lines().all(|line| line.starts_with("good vm1: ")), "{said:?}");
    let said = home.well(&["check", "--offline", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["good"], true);

    let superblock = home.path("alpha/vm1/superblock");
    let good = fs::read(&superblock).unwrap();
    let bad: Vec<u8> = good.iter().map(|byte| byte ^ 1).collect();
    fs::write(&superblock, bad).unwrap();
    let said = home.say(&["check", "--offline"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains(" bad vm1: superblock: "), "{said:?}");
    assert!(said.stderr.contains("hotpair init vm1 --from peer --rebuild"), "{said:?}");
    fs::write(&superblock, good).unwrap();
    home.well(&["check", "--offline"]);

    // A size that does not fit is no reason to give the metadata up.
    home.configure(&home.text().replace("1MiB", "2MiB"));
    let said = home.say(&["check", "--offline"]);
    assert!(said.stdout.contains(" bad vm1: size: "), "{said:?}");
    assert!(said.stderr.contains("hotpair resize vm1 --size 2MiB"), "{said:?}");
    assert!(!said.stderr.contains("--rebuild"), "{said:?}");
}
