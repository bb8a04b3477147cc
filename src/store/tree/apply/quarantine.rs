//! Where that goes which no journal knows of: `lost+hotpair/<epoch>/` and its path in the tree.
//!
//! Nothing is ever written over or removed there. A name that is taken gets a number. Beside the
//! first names of each epoch is `WHY.jsonl`, a line for each thing that was brought there. It is
//! made before anything else, so that nothing from the tree can have its name.

use std::fs::File;
use std::io::Write as _;

use rustix::fs::{Mode, OFlags, openat2};
use rustix::io::Errno;
use serde::Serialize;

use super::super::folder::{BENEATH, Folder, os};
use super::error::ApplyError;
use super::records::errno_of;
use super::steps::Steps;
use crate::manifest::{Body, FileTime, NAME_LEN_MAX, Name};
use crate::units::Epoch;

/// The file that says why.
const WHY: &str = "WHY.jsonl";

/// What the quarantine says of when something was brought there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    /// The epoch of this node.
    pub epoch: Epoch,
    /// The time of day, for people only.
    pub now: FileTime,
}

/// The quarantine of one epoch.
#[derive(Debug)]
pub(super) struct Quarantine<'a> {
    lost: &'a Folder,
    moment: Moment,
    opened: Option<Opened>,
    /// The folder that was used last: what comes next is often from the same one.
    last: Option<(Vec<Name>, Folder)>,
    count: u64,
}

#[derive(Debug)]
struct Opened {
    folder: Folder,
    why: File,
}

/// A line of `WHY.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kept_as: String,
    why: &'a str,
}

impl<'a> Quarantine<'a> {
    pub(super) fn new(lost: &'a Folder, moment: Moment) -> Self {
        Self { lost, moment, opened: None, last: None, count: 0 }
    }

    /// How many things were brought.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Brings what `from` calls `name`; `above` are the names of the directories that lead there
    /// from the root of the tree.
    ///
    /// # Errors
    /// `NOENT` in [`ApplyError::Refused`] if it is gone meanwhile, else what the kernel says.
    pub(super) fn bring(
        &mut self,
        steps: &Steps,
        (from, name): (&Folder, &Name),
        above: &[Name],
        why: &str,
    ) -> Result<(), ApplyError> {
        self.bring_as(steps, (from, name), (above, name), why)
    }

    /// The same for what `from` calls `slot` by now, and the tree called `name`.
    ///
    /// # Errors
    /// As [`Quarantine::bring`].
    pub(super) fn bring_as(
        &mut self,
        steps: &Steps,
        (from, slot): (&Folder, &Name),
        (above, name): (&[Name], &Name),
        why: &str,
    ) -> Result<(), ApplyError> {
        let bytes = path_bytes(above, name);
        let path = bytes.escape_ascii().to_string();
        let failed = |errno| ApplyError::kernel("bring it to the quarantine", &*path, errno);
        let epoch = match self.opened.take() {
            Some(opened) => opened,
            None => self.open(steps, &path)?,
        };
        let folder = match self.last.take() {
            Some((names, folder)) if names == above => folder,
            _ => folder_of(steps, &epoch.folder, above, &path)?,
        };
        steps.take("bring it to the quarantine", || path.clone())?;
        let kept_as = free_name(name, |new| from.rename(slot, &folder, new)).map_err(failed)?;
        self.count += 1;
        let line = Line {
            time: time_text(self.moment.now),
            path: path.clone(),
            path_hex: std::str::from_utf8(&bytes).is_err().then(|| hex(&bytes)),
            kept_as: kept_as.to_string(),
            why,
        };
        let mut text = serde_json::to_vec(&line).map_err(|_| failed(Errno::INVAL))?;
        text.push(b'\n');
        steps.take("say why", || path.clone())?;
        // One write, so that lines are whole. What syncs the tree syncs this as well.
        (&epoch.why).write_all(&text).map_err(|error| failed(errno_of(&error)))?;
        self.opened = Some(epoch);
        self.last = Some((above.to_vec(), folder));
        Ok(())
    }

    /// Whether there is a folder for what was in the directory `name` of the tree.
    pub(super) fn has_folder(&self, above: &[Name], name: &Name) -> bool {
        let Ok(mut folder) = self.lost.child(&self.epoch_name()) else { return false };
        above.iter().chain([name]).all(|name| match folder.child(name) {
            Ok(child) => {
                folder = child;
                true
            }
            Err(_) => false,
        })
    }

    fn epoch_name(&self) -> Name {
        Name::new(self.moment.epoch.0.to_string().as_bytes()).expect("digits are a name")
    }

    /// Opens the folder of the epoch, and makes what is missing of it.
    fn open(&self, steps: &Steps, path: &str) -> Result<Opened, ApplyError> {
        let failed = |errno| ApplyError::kernel("open the quarantine for it", path, errno);
        let name = self.epoch_name();
        make_folder(steps, self.lost, &name, path)?;
        let folder = self.lost.child(&name).map_err(failed)?;
        let name = Name::new(WHY.as_bytes()).expect("a word is a name");
        steps.take("make", || path.to_owned())?;
        match folder.make_file(&name) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let why = openat2(&folder, os(&name), flags, Mode::empty(), BENEATH).map_err(failed)?;
        Ok(Opened { folder, why: File::from(why) })
    }
}

/// The folder with these names below `top`. Where a name is taken by something else, the next one
/// with a number is used.
fn folder_of(
    steps: &Steps,
    top: &Folder,
    names: &[Name],
    path: &str,
) -> Result<Folder, ApplyError> {
    let failed = |errno| ApplyError::kernel("open the quarantine for it", path, errno);
    let mut folder = top.again().map_err(failed)?;
    for name in names {
        let mut number = 0;
        folder = loop {
            let name = numbered(name, number);
            match folder.child(&name) {
                Ok(child) => break child,
                Err(Errno::NOENT) => make_folder(steps, &folder, &name, path)?,
                Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => number += 1,
                Err(errno) => return Err(failed(errno)),
            }
        };
    }
    Ok(folder)
}

fn make_folder(steps: &Steps, folder: &Folder, name: &Name, path: &str) -> Result<(), ApplyError> {
    let action = "make a folder of the quarantine for it";
    steps.take(action, || path.to_owned())?;
    match folder.make(name, &Body::Directory) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(ApplyError::kernel(action, path, errno)),
    }
}

/// Tries `name`, then `name` with a number, until one is not taken.
fn free_name(
    name: &Name,
    mut attempt: impl FnMut(&Name) -> Result<(), Errno>,
) -> Result<Name, Errno> {
    let mut number = 0;
    loop {
        let new = numbered(name, number);
        match attempt(&new) {
            Ok(()) => return Ok(new),
            Err(Errno::EXIST) => number += 1,
            Err(errno) => return Err(errno),
        }
    }
}

/// `name` with a number behind it, if that is not zero, and cut so that both are a name.
fn numbered(name: &Name, number: u64) -> Name {
    if number == 0 {
        return name.clone();
    }
    let suffix = format!(".{number}");
    let kept = name.bytes().len().min(NAME_LEN_MAX - suffix.len());
    let bytes = [name.bytes().get(..kept).unwrap_or_default(), suffix.as_bytes()].concat();
    Name::new(&bytes).expect("the start of a name and a number are a name")
}

fn path_bytes(above: &[Name], name: &Name) -> Vec<u8> {
    let names: Vec<&[u8]> = above.iter().chain([name]).map(Name::bytes).collect();
    names.join(&b'/')
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// As other lines for machines have it; a time that no calendar has is shown as its seconds.
fn time_text(time: FileTime) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or_default();
    jiff::Timestamp::new(time.seconds, nanos)
        .map_or_else(|_| time.seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::PathBuf;

    use super::*;

    fn name(bytes: &[u8]) -> Name {
        Name::new(bytes).unwrap()
    }

    struct Case {
        outer: tempfile::TempDir,
        tree: Folder,
        lost: Folder,
    }

    impl Case {
        fn new() -> Self {
            let outer = tempfile::tempdir().unwrap();
            for folder in ["tree", "lost"] {
                std::fs::create_dir(outer.path().join(folder)).unwrap();
            }
            let open = |text| Folder::open(&outer.path().join(text)).unwrap();
            let (tree, lost) = (open("tree"), open("lost"));
            Self { outer, tree, lost }
        }

        fn bring(&self, quarantine: &mut Quarantine<'_>, above: &[&[u8]], it: &[u8], text: &str) {
            let path = self.outer.path().join("tree").join(std::ffi::OsStr::from_bytes(it));
            std::fs::write(path, text).unwrap();
            let above: Vec<Name> = above.iter().map(|it| name(it)).collect();
            let steps = Steps::unlimited();
            quarantine.bring(&steps, (&self.tree, &name(it)), &above, "foreign").unwrap();
        }

        fn kept(&self, path: &[u8]) -> String {
            std::fs::read_to_string(self.path(path)).unwrap()
        }

        fn path(&self, path: &[u8]) -> PathBuf {
            self.outer.path().join("lost/5").join(std::ffi::OsStr::from_bytes(path))
        }

        fn lines(&self) -> Vec<serde_json::Value> {
            let text = self.kept(b"WHY.jsonl");
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    const MOMENT: Moment =
        Moment { epoch: Epoch(5), now: FileTime { seconds: 1_767_225_600, nanos: 500_000_000 } };

    #[test]
    fn what_is_brought_keeps_its_path_and_nothing_there_is_written_over() {
        let case = Case::new();
        let mut quarantine = Quarantine::new(&case.lost, MOMENT);
        case.bring(&mut quarantine, &[b"a", b"b"], b"f", "1");
        case.bring(&mut quarantine, &[b"a", b"b"], b"f", "2");
        case.bring(&mut quarantine, &[b"a"], b"b", "3");
        // A new one, as after a start.
        let mut quarantine = Quarantine::new(&case.lost, MOMENT);
        case.bring(&mut quarantine, &[b"a", b"b"], b"f", "4");
        case.bring(&mut quarantine, &[b"a", b"b.1"], b"f", "5");
        case.bring(&mut quarantine, &[], b"WHY.jsonl", "6");
        case.bring(&mut quarantine, &[b"WHY.jsonl"], b"x", "7");
        let long = [b'n'; 255];
        case.bring(&mut quarantine, &[], &long, "8");
        case.bring(&mut quarantine, &[], &long, "9");
        let cut = [&long[..253], b".1"].concat();
        let expected: [(&[u8], &str); 9] = [
            (b"a/b/f", "1"),
            (b"a/b/f.1", "2"),
            (b"a/b.1", "3"),
            (b"a/b/f.2", "4"),
            (b"a/b.1.1/f", "5"),
            (b"WHY.jsonl.1", "6"),
            (b"WHY.jsonl.2/x", "7"),
            (&long, "8"),
            (&cut, "9"),
        ];
        for (path, text) in expected {
            assert_eq!(case.kept(path), text, "{}", path.escape_ascii());
        }
        assert_eq!(case.path(b"a/b").metadata().unwrap().mode() & 0o7777, 0o700);
        let lines = case.lines();
        assert_eq!((lines.len(), quarantine.count()), (9, 6));
        assert_eq!(lines[1]["path"], "a/b/f");
        assert_eq!(lines[1]["kept_as"], "f.1");
        assert_eq!(lines[1]["time"], "2026-01-01T00:00:00.5Z");
        assert_eq!(lines[1]["why"], "foreign");
        assert!(lines[1].get("path_hex").is_none());
    }

    #[test]
    fn names_of_any_bytes_are_said_so_that_they_can_be_told() {
        let case = Case::new();
        let mut quarantine = Quarantine::new(&case.lost, MOMENT);
        case.bring(&mut quarantine, &[b"\xff"], b"a\n\"", "1");
        let lines = case.lines();
        assert_eq!(lines[0]["path"], r#"\xff/a\n\""#);
        assert_eq!(lines[0]["path_hex"], "ff2f610a22");
        assert_eq!(case.kept(b"\xff/a\n\""), "1");
    }

    #[test]
    fn a_link_in_the_quarantine_leads_nowhere() {
        let case = Case::new();
        let mut quarantine = Quarantine::new(&case.lost, MOMENT);
        let outside = case.outer.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        case.bring(&mut quarantine, &[], b"f", "1");
        symlink(&outside, case.path(b"d")).unwrap();
        case.bring(&mut quarantine, &[b"d"], b"f", "2");
        assert_eq!(case.kept(b"d.1/f"), "2");
        assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
    }
}
