//! Trees of very many small files: made by us, or unpacked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::tool;

/// Files of one folder, as far as there are enough.
const FILES_PER_FOLDER: u32 = 1000;

/// Makes `count` files of `len` bytes each below `root`, a thousand in a folder. No two are alike.
///
/// # Errors
/// What the system says.
pub(crate) fn make(root: &Path, count: u32, len: usize, seed: u64) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    for number in 0..count {
        let folder = root.join(format!("{:05}", number / FILES_PER_FOLDER));
        if number % FILES_PER_FOLDER == 0 {
            fs::create_dir(&folder)?;
        }
        random.fill(&mut bytes);
        fs::write(folder.join(format!("{number:08}")), &bytes)?;
    }
    Ok(())
}

/// The archive of one of Debian's `linux-source` packages, if one is installed: some 80,000 files
/// of all sizes. None is installed for this.
pub(crate) fn linux_source() -> Option<PathBuf> {
    let mut query = tool::command("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status} ${Package}\n", "linux-source-*"]);
    let packages = String::from_utf8(tool::output_of(&mut query).ok()?).ok()?;
    let mut names = packages.lines().filter_map(|line| line.strip_prefix("installed "));
    names.find_map(|name| {
        let files = tool::output_of(tool::command("dpkg-query").args(["--listfiles", name]));
        archive_in(&String::from_utf8(files.ok()?).ok()?)
    })
}

/// The archive among the files of a package.
fn archive_in(files: &str) -> Option<PathBuf> {
    let mut archives = files.lines().filter(|path| path.contains(".tar."));
    archives.find(|path| path.starts_with("/usr/src/")).map(PathBuf::from)
}

/// Unpacks an archive into the folder `into`.
///
/// # Errors
/// What tar says.
pub(crate) fn unpack(archive: &Path, into: &Path) -> Result<(), String> {
    let mut tar = tool::command("tar");
    tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(into);
    tool::output_of(&mut tar).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::super::judge::{Kind, Snapshot};
    use super::*;

    #[test]
    fn there_are_as_many_files_as_were_asked_for_and_no_two_are_alike() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), 1200, 100, 1).unwrap();
        let snapshot = Snapshot::of(folder.path()).unwrap();
        let mut contents = std::collections::BTreeSet::new();
        for (_, entry) in snapshot.entries() {
            if let Kind::Regular { size, content } = entry.kind {
                assert_eq!(size, 100);
                contents.insert(content);
            }
        }
        assert_eq!(contents.len(), 1200);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_archive_is_unpacked_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, copy) = (folder.path().join("tree"), folder.path().join("copy"));
        fs::create_dir(&tree).unwrap();
        fs::create_dir(&copy).unwrap();
        make(&tree, 50, 1000, 2).unwrap();
        let archive = folder.path().join("archive.tar");
        let mut tar = tool::command("tar");
        tar.args(["--create", "--format=posix", "--file"]).arg(&archive);
        tool::output_of(tar.arg("--directory").arg(&tree).arg(".")).unwrap();
        unpack(&archive, &copy).unwrap();
        Snapshot::of(&tree).unwrap().check_equal(&Snapshot::of(&copy).unwrap()).unwrap();
        unpack(&folder.path().join("absent.tar"), &copy).unwrap_err();
    }

    #[test]
    fn the_archive_of_a_package_is_found_among_its_files() {
        let files = "/.\n/usr\n/usr/src\n/usr/share/doc/linux-source-6.1/x.tar.gz\n\
            /usr/src/linux-config-6.1\n/usr/src/linux-source-6.1.tar.xz\n";
        assert_eq!(archive_in(files), Some("/usr/src/linux-source-6.1.tar.xz".into()));
        assert_eq!(archive_in("/usr/src/linux-source-6.1/README\n"), None);
        // Whether one is installed or not: what is said to be there is.
        assert!(linux_source().is_none_or(|path| path.is_file()));
    }
}
