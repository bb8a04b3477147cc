//! A git repository at work: commits, branches, merges, tags, and packing, which replaces
//! thousands of files by a few and removes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::tool;

/// Files of the project; few, so that branches meet in them.
const FILES: u32 = 40;
const BRANCHES_MAX: usize = 8;

/// A repository with its files.
#[derive(Debug)]
pub(crate) struct Repository {
    path: PathBuf,
    random: fastrand::Rng,
    branches: Vec<String>,
    steps: u32,
}

impl Repository {
    /// Makes one with a first commit.
    ///
    /// # Errors
    /// What git says.
    pub(crate) fn make(path: &Path, seed: u64) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|err| err.to_string())?;
        let random = fastrand::Rng::with_seed(seed);
        let branches = vec!["main".to_owned()];
        let mut repository = Self { path: path.to_owned(), random, branches, steps: 0 };
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        repository.commit()?;
        Ok(repository)
    }

    /// Does one thing.
    ///
    /// # Errors
    /// What git says.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        match self.random.u8(0..20) {
            0..=10 => self.commit(),
            11..=12 if self.branches.len() < BRANCHES_MAX => {
                let name = format!("branch-{}", self.steps);
                self.git(&["switch", "--quiet", "--create", &name])?;
                self.branches.push(name);
                Ok(())
            }
            11..=14 => {
                let name = self.any_branch();
                self.git(&["switch", "--quiet", &name])
            }
            15..=16 => {
                let name = self.any_branch();
                self.merge(&name)
            }
            17 => {
                let name = format!("tag-{}", self.steps);
                self.git(&["tag", "--annotate", "--message=a tag", &name])
            }
            18 => self.git(&["repack", "-q", "-d"]),
            _ => self.collect_garbage(),
        }
    }

    fn merge(&self, name: &str) -> Result<(), String> {
        let merge = ["merge", "--quiet", "--no-edit", "--strategy-option=ours", name];
        // One side may have removed what the other one changed, which no option resolves.
        self.git(&merge).or_else(|_| self.git(&["merge", "--abort"]))
    }

    /// Packs all objects into one file, and drops what nothing leads to.
    ///
    /// # Errors
    /// What git says.
    pub(crate) fn collect_garbage(&mut self) -> Result<(), String> {
        self.git(&["gc", "--quiet", "--prune=now"])
    }

    /// Changes, makes and removes some files, and commits that.
    fn commit(&mut self) -> Result<(), String> {
        for _ in 0..self.random.u32(1..6) {
            let number = self.random.u32(0..FILES);
            let folder = self.path.join(format!("src/part-{}", number % 7));
            fs::create_dir_all(&folder).map_err(|err| err.to_string())?;
            let path = folder.join(format!("file-{number}"));
            let mut text = fs::read_to_string(&path).unwrap_or_default();
            if text.len() > 20_000 {
                fs::remove_file(path).map_err(|err| err.to_string())?;
                continue;
            }
            let lines = (0..self.random.u32(1..30)).map(|_| self.random.u64(..).to_string());
            text += &lines.collect::<Vec<_>>().join("\n");
            text.push('\n');
            fs::write(path, text).map_err(|err| err.to_string())?;
        }
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message=a change"])
    }

    fn any_branch(&mut self) -> String {
        self.branches[self.random.usize(..self.branches.len())].clone()
    }

    fn git(&self, arguments: &[&str]) -> Result<(), String> {
        let date = format!("{} +0000", 1_600_000_000 + self.steps);
        let mut git = git_at(&self.path);
        git.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date).args(arguments);
        tool::output_of(&mut git).map(drop)
    }
}

/// All objects that anything leads to are there and whole, in the repository at `path` or a copy
/// of it, where nothing is written. Returns the commit that is checked out.
///
/// # Errors
/// What git found.
pub(crate) fn check(path: &Path) -> Result<String, String> {
    tool::output_of(git_at(path).args(["fsck", "--full", "--strict", "--no-dangling"]))?;
    let head = tool::output_of(git_at(path).args(["rev-parse", "--verify", "HEAD"]))?;
    Ok(String::from_utf8_lossy(&head).trim().to_owned())
}

/// The files of the project are those of the commit that is checked out.
///
/// # Errors
/// Those that are not.
pub(crate) fn check_files(path: &Path) -> Result<(), String> {
    let changed = tool::output_of(git_at(path).args(["status", "--porcelain"]))?;
    let changed = String::from_utf8_lossy(&changed);
    if changed.is_empty() { Ok(()) } else { Err(changed.into_owned()) }
}

/// git as nobody configured it, for the repository at `path`.
fn git_at(path: &Path) -> Command {
    let mut git = tool::command("git");
    git.arg("--no-optional-locks").arg("-C").arg(path);
    for setting in ["safe.directory=*", "gc.auto=0", "maintenance.auto=false", "core.fsync=all"] {
        git.args(["-c", setting]);
    }
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "a person");
        git.env(format!("GIT_{role}_EMAIL"), "person@example.invalid");
    }
    // A hook or a caller may have set these for another repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        git.env_remove(name);
    }
    git
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_whole_after_each_step_and_the_same_for_one_seed() {
        if !tool::is_there("git") {
            return tool::say_skipped("a repository at work", "no `git`");
        }
        let folder = tempfile::tempdir().unwrap();
        let heads: Vec<String> = ["one", "other"]
            .map(|name| {
                let path = folder.path().join(name);
                let mut repository = Repository::make(&path, 5).unwrap();
                for _ in 0..25 {
                    repository.step().unwrap();
                }
                check_files(&path).unwrap();
                check(&path).unwrap()
            })
            .into();
        assert_eq!(heads[0], heads[1]);
    }

    #[test]
    fn a_missing_and_a_changed_object_are_found() {
        if !tool::is_there("git") {
            return tool::say_skipped("a broken repository", "no `git`");
        }
        let folder = tempfile::tempdir().unwrap();
        let mut repository = Repository::make(folder.path(), 1).unwrap();
        repository.collect_garbage().unwrap();
        check(folder.path()).unwrap();
        let packs = fs::read_dir(folder.path().join(".git/objects/pack")).unwrap();
        let mut paths = packs.map(|entry| entry.unwrap().path());
        let pack = paths.find(|path| path.extension().is_some_and(|it| it == "pack")).unwrap();
        let bytes = fs::read(&pack).unwrap();
        let mut broken = bytes.clone();
        broken[bytes.len() / 2] ^= 1;
        // Packs are read-only.
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, broken).unwrap();
        check(folder.path()).unwrap_err();
        fs::remove_file(&pack).unwrap();
        check(folder.path()).unwrap_err();
        fs::write(&pack, bytes).unwrap();
        check(folder.path()).unwrap();

        let file = fs::read_dir(folder.path().join("src")).unwrap().next().unwrap().unwrap();
        fs::remove_dir_all(file.path()).unwrap();
        check_files(folder.path()).unwrap_err();
    }
}
