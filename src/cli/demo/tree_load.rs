//! An application that writes to a tree, as applications do: it knows nothing of hotpair.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::tree_ledger::Ledger;
use super::tree_walk::{Entry, Kind};

/// Files of the tree at the start, without the large ones.
const FILES: u64 = 240;
/// Folders that they are in.
const FOLDERS: u64 = 12;
/// Fewer files than this are not removed.
const FILES_MIN: usize = 150;
/// A file with a few blocks in it and nothing between.
const SPARSE_LEN: u64 = 4 << 20;
const SPARSE: &str = "disk/sparse.img";
/// The largest file.
const LARGE: &str = "disk/large.bin";
/// Longest time between two changes.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// Bytes of a change.
const PIECE: usize = 4096;

/// The application.
#[derive(Debug)]
pub(super) struct Application {
    root: PathBuf,
    draw: fastrand::Rng,
    /// Names that it has made.
    names: u64,
    /// What it did.
    pub(super) ledger: Ledger,
}

/// Makes a tree of `size` bytes.
pub(super) async fn make_tree(root: &Path, size: u64) -> io::Result<()> {
    let mut draw = fastrand::Rng::new();
    fs::create_dir(root)?;
    fs::create_dir(root.join("disk"))?;
    fs::create_dir(root.join("empty"))?;
    let large = size / 4;
    let mut file = File::create_new(root.join(LARGE))?;
    let mut left = large;
    while left > 0 {
        let piece = bytes(&mut draw, left.min(1 << 20));
        file.write_all(&piece)?;
        left -= piece.len() as u64;
        tokio::task::yield_now().await;
    }
    let file = File::create_new(root.join(SPARSE))?;
    file.set_len(SPARSE_LEN)?;
    for at in [0, SPARSE_LEN / 2] {
        file.write_all_at(&bytes(&mut draw, PIECE as u64), at)?;
    }
    for folder in 0..FOLDERS {
        fs::create_dir(root.join(format!("mail-{folder}")))?;
    }
    let mean = (size - large) / FILES;
    for number in 0..FILES {
        let folder = root.join(format!("mail-{}", number % FOLDERS));
        let place = folder.join(format!("{number}"));
        // Two in a row make twice the mean.
        let share = mean / 4 + number / 2 % 7 * mean / 4;
        let len = if number.is_multiple_of(2) { share } else { 2 * mean - share };
        fs::write(&place, bytes(&mut draw, len))?;
        if number.is_multiple_of(10) {
            fs::set_permissions(&place, Permissions::from_mode(0o600))?;
            fs::hard_link(&place, folder.join(format!("{number}.link")))?;
            symlink(format!("../mail-0/{number}"), folder.join(format!("{number}.symlink")))?;
        }
        tokio::task::yield_now().await;
    }
    fs::write(root.join("a name\nof two lines"), "text")
}

impl Application {
    /// Takes up the work at `root`.
    pub(super) async fn begin(root: &Path) -> io::Result<Self> {
        let ledger = Ledger::begin(root).await?;
        Ok(Self { root: root.to_owned(), draw: fastrand::Rng::new(), names: 0, ledger })
    }

    /// The tree that it writes to.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Length of the largest file.
    pub(super) fn patched_len(&self) -> u64 {
        self.ledger.entry(Path::new(LARGE)).map_or(0, Entry::len)
    }

    /// Changes something now and then, for so long.
    pub(super) async fn work(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.change()?;
            sleep(PAUSE_MAX.mul_f64(self.draw.f64())).await;
        }
        Ok(())
    }

    /// Changes something so many times, without a pause.
    pub(super) async fn hurry(&mut self, count: u32) -> io::Result<()> {
        for _ in 0..count {
            self.create()?;
            self.change()?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Overwrites a little of the largest file.
    pub(super) fn patch(&mut self) -> io::Result<u64> {
        self.overwrite(Path::new(LARGE))
    }

    /// Renames the folder with most in it; says how many entries that moves.
    pub(super) fn move_folder(&mut self) -> io::Result<usize> {
        let count = |folder: &Path| self.below(folder).len();
        let folders = self.paths_of(|kind| *kind == Kind::Folder);
        let folders = folders.into_iter().filter(|path| path.parent() == Some(Path::new("")));
        let Some(folder) = folders.max_by_key(|folder| count(folder)) else { return Ok(0) };
        let name = self.name();
        self.rename(&folder, &name)?;
        Ok(self.below(&name).len())
    }

    fn change(&mut self) -> io::Result<()> {
        let files = self.paths_of(|kind| matches!(kind, Kind::File { .. }));
        let Some(file) = self.draw.choice(&files).cloned() else { return self.create() };
        match self.draw.u8(..20) {
            0..5 => self.create(),
            5..9 => self.replace(&file),
            9..12 => self.append(&file),
            12..14 => self.overwrite(&file).map(|_| ()),
            14 if files.len() > FILES_MIN => self.remove(&file),
            14 | 15 => self.rename_file(&file),
            16 => self.link(&file),
            17 => self.make_folder(),
            18 => self.make_symlink(&file),
            _ => self.set_mode(&file),
        }
    }

    fn create(&mut self) -> io::Result<()> {
        let path = self.name_in_some_folder();
        let mut file = File::create_new(self.root.join(&path))?;
        self.ledger.note([path.as_path()])?;
        let piece = self.piece();
        file.write_all(&piece)?;
        self.ledger.note([path.as_path()])
    }

    /// As editors save: a new file in the place of the old one.
    fn replace(&mut self, path: &Path) -> io::Result<()> {
        let new = self.beside(path);
        fs::write(self.root.join(&new), [])?;
        self.ledger.note([new.as_path()])?;
        let piece = self.piece();
        OpenOptions::new().write(true).open(self.root.join(&new))?.write_all(&piece)?;
        self.ledger.note([new.as_path()])?;
        self.rename(&new, path)
    }

    fn append(&mut self, path: &Path) -> io::Result<()> {
        let piece = self.piece();
        OpenOptions::new().append(true).open(self.root.join(path))?.write_all(&piece)?;
        self.ledger.note([path])
    }

    fn overwrite(&mut self, path: &Path) -> io::Result<u64> {
        let piece = bytes(&mut self.draw, PIECE as u64);
        let file = OpenOptions::new().write(true).open(self.root.join(path))?;
        let last = file.metadata()?.len().saturating_sub(PIECE as u64) / PIECE as u64;
        file.write_all_at(&piece, self.draw.u64(..=last) * PIECE as u64)?;
        self.ledger.note([path])?;
        Ok(piece.len() as u64)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.root.join(path))?;
        self.ledger.note([path])
    }

    fn rename_file(&mut self, path: &Path) -> io::Result<()> {
        let to = self.name_in_some_folder();
        self.rename(path, &to)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut touched = self.below(from);
        rustix::fs::rename(self.root.join(from), self.root.join(to))?;
        let moved = touched.iter().filter_map(|path| path.strip_prefix(from).ok());
        let moved: Vec<_> = moved.map(|below| joined(to, below)).collect();
        touched.extend(moved);
        self.ledger.note(touched.iter().map(PathBuf::as_path))
    }

    fn link(&mut self, path: &Path) -> io::Result<()> {
        let new = self.name_in_some_folder();
        fs::hard_link(self.root.join(path), self.root.join(&new))?;
        self.ledger.note([new.as_path()])
    }

    fn make_folder(&mut self) -> io::Result<()> {
        let new = self.name_in_some_folder();
        fs::create_dir(self.root.join(&new))?;
        self.ledger.note([new.as_path()])
    }

    fn make_symlink(&mut self, target: &Path) -> io::Result<()> {
        let new = self.name_in_some_folder();
        symlink(target, self.root.join(&new))?;
        self.ledger.note([new.as_path()])
    }

    fn set_mode(&mut self, path: &Path) -> io::Result<()> {
        let mode = *self.draw.choice(&[0o600, 0o640, 0o644, 0o755]).unwrap_or(&0o600);
        fs::set_permissions(self.root.join(path), Permissions::from_mode(mode))?;
        self.ledger.note([path])
    }

    /// A path and all that is below it.
    fn below(&self, path: &Path) -> Vec<PathBuf> {
        let all = self.ledger.paths().map(|(path, _)| path);
        all.filter(|it| it.starts_with(path)).map(Path::to_owned).collect()
    }

    fn paths_of(&self, is_one: impl Fn(&Kind) -> bool) -> Vec<PathBuf> {
        let all = self.ledger.paths().filter(|(_, entry)| is_one(&entry.kind));
        all.map(|(path, _)| path.to_owned()).collect()
    }

    fn name(&mut self) -> PathBuf {
        self.names += 1;
        // Names of another application that worked here before are not met by chance.
        PathBuf::from(format!("new-{}-{:06x}", self.names, self.draw.u32(..1 << 24)))
    }

    fn beside(&mut self, path: &Path) -> PathBuf {
        let name = self.name();
        path.with_file_name(name)
    }

    fn name_in_some_folder(&mut self) -> PathBuf {
        let folders = self.paths_of(|kind| *kind == Kind::Folder);
        let name = self.name();
        self.draw.choice(&folders).map_or(name.clone(), |folder| folder.join(name))
    }

    fn piece(&mut self) -> Vec<u8> {
        let len = self.draw.u64(1..=2 * PIECE as u64);
        bytes(&mut self.draw, len)
    }
}

fn joined(folder: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { folder.to_owned() } else { folder.join(below) }
}

fn bytes(draw: &mut fastrand::Rng, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("the demo's files have a limit")];
    draw.fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::block_on;
    use crate::cli::demo::tree_walk::{self, walk};

    #[test]
    fn a_tree_has_its_size_and_the_ledger_knows_what_was_done_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        block_on(async {
            let size = 2 << 20;
            make_tree(&root, size).await.unwrap();
            let entries = walk(&root).await.unwrap();
            let bytes = tree_walk::bytes(&entries) - SPARSE_LEN;
            assert!(bytes.abs_diff(size) < size / 20, "{bytes}");
            assert!(entries.len() > 300, "{}", entries.len());
            let mut application = Application::begin(&root).await.unwrap();
            application.patch().unwrap();
            application.hurry(100).await.unwrap();
            assert!(application.move_folder().unwrap() > 10);
            let found = walk(&root).await.unwrap();
            let differences = tree_walk::differences(&application.ledger.entries(), &found);
            assert_eq!(differences, Vec::<String>::new());
            Ok(())
        })
        .unwrap();
    }
}
