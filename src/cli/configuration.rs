//! The configuration file, and the node that a command is typed for.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use annotate_snippets::Renderer;
use anyhow::Context as _;

use super::args::Common;
use super::failure::Failure;
use crate::config::{self, ConfigError, FileFacts, NodeConfig, Parsed, Warning};

/// Where the configuration is unless something else is said.
const PATH: &str = "/etc/hotpair/hotpair.toml";

/// What a file holds, before anybody understood it.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) path: PathBuf,
    text: String,
}

/// Reads the file that the command line names.
pub(super) fn read(common: &Common) -> Result<Text, Failure> {
    let path = path(common).to_owned();
    read_file(&path).map_err(|error| {
        let shown = path.display();
        match error {
            ReadError::Wrong(error) => {
                Failure::Configuration(error.render(&shown.to_string(), "", &Renderer::styled()))
            }
            ReadError::Io(error) => {
                let error = anyhow::Error::new(error)
                    .context(format!("cannot read the configuration {shown}"));
                Failure::failed(&error, "name the right file with --config FILE")
            }
        }
    })
}

/// As [`read`], but that nobody wrote a file at the usual place is an answer.
pub(super) fn read_if_there(common: &Common) -> Result<Option<Text>, Failure> {
    if common.config.is_none() && !Path::new(PATH).exists() {
        return Ok(None);
    }
    read(common).map(Some)
}

fn path(common: &Common) -> &Path {
    common.config.as_deref().unwrap_or(Path::new(PATH))
}

enum ReadError {
    Io(io::Error),
    Wrong(ConfigError),
}

fn read_file(path: &Path) -> Result<Text, ReadError> {
    let file = File::open(path).map_err(ReadError::Io)?;
    let found = file.metadata().map_err(ReadError::Io)?;
    let facts = FileFacts {
        len: found.len(),
        mode: found.mode(),
        owner: found.uid(),
        me: rustix::process::geteuid().as_raw(),
    };
    config::check_file(facts).map_err(ReadError::Wrong)?;
    let mut bytes = Vec::new();
    file.take(config::FILE_LEN_MAX).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    let text = config::text_of(bytes).map_err(ReadError::Wrong)?;
    Ok(Text { path: path.to_owned(), text })
}

impl Text {
    /// Understands it.
    pub(super) fn parse(&self) -> Result<Parsed, Failure> {
        let parsed = config::parse(&self.text).map_err(|error| self.wrong(&error))?;
        #[cfg(feature = "directory")]
        check_patterns(&parsed.config)?;
        Ok(parsed)
    }

    /// Shows what is worth saying about it.
    pub(super) fn show(&self, warning: &Warning) -> String {
        warning.render(&self.path.display().to_string(), &self.text, &Renderer::styled())
    }

    /// The folder of a node's keys, though the rest may be unfinished: whoever asks for the
    /// fingerprint still has to write it into this file.
    pub(super) fn state_dir(&self, common: &Common) -> Result<PathBuf, Failure> {
        let nodes = config::state_dirs(&self.text).map_err(|error| self.wrong(&error))?;
        let names: Vec<&str> = nodes.iter().map(|(name, _)| name.as_str()).collect();
        let name = choose(common, &names, &self.path)?;
        let (_, folder) = nodes.into_iter().find(|(node, _)| *node == name).expect("it was chosen");
        Ok(folder)
    }

    fn wrong(&self, error: &ConfigError) -> Failure {
        let path = self.path.display().to_string();
        Failure::Configuration(error.render(&path, &self.text, &Renderer::styled()))
    }
}

/// Whether the patterns of directories can be read: only what uses them knows.
#[cfg(feature = "directory")]
fn check_patterns(config: &config::Config) -> Result<(), Failure> {
    for resource in &config.resources {
        let Some(directory) = &resource.directory else { continue };
        crate::store::tree::Exclude::new(&directory.exclude).map_err(|error| Failure::Failed {
            why: format!("[resource.{}]: {error}", resource.name),
            next: "correct the pattern; a backslash takes the meaning of the character behind it"
                .to_owned(),
        })?;
    }
    Ok(())
}

/// The checked configuration as this node sees it.
pub(super) fn node(common: &Common) -> Result<NodeConfig, Failure> {
    let text = read(common)?;
    let config = text.parse()?.config;
    let names = config.nodes.each_ref().map(|node| node.name.as_str());
    let name = choose(common, &names, &text.path)?;
    Ok(config.for_node(&name).expect("it was chosen among the nodes"))
}

/// Which node this is: the one that is named, else the one called as the host, else the one called
/// as the host without its domain.
fn choose(common: &Common, names: &[&str], path: &Path) -> Result<String, Failure> {
    let list = names.join(" and ");
    let is_there = |name: &str| names.contains(&name);
    if let Some(name) = &common.node {
        if is_there(name) {
            return Ok(name.clone());
        }
        let why = format!("{} has no node {name}", path.display());
        return Err(Failure::refused(why, format!("name one of its nodes: {list}")));
    }
    let host = host_name()?;
    let short = host.split('.').next().unwrap_or_default();
    for name in [host.as_str(), short] {
        if is_there(name) {
            return Ok(name.to_owned());
        }
    }
    let why = format!("this host is called {host}, and {} has no such node", path.display());
    Err(Failure::refused(why, format!("say which node this is with --node NAME: {list}")))
}

fn host_name() -> Result<String, Failure> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().context("the host name is not UTF-8");
    name.map(ToOwned::to_owned)
        .map_err(|error| Failure::failed(&error, "say which node this is with --node NAME"))
}
