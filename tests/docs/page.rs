//! A page of the documentation, cut into what a test can use.
//!
//! A block that is fenced as `console` has a prompt that names the node, the command, and below it
//! what is shown: `..` in it stands for anything. A command ends with `# exit N` if its exit code
//! is not 0. A comment `<!-- stage: .. -->`, which readers do not see, says what happens to the
//! world in between; `world.rs` has its words.

use std::path::PathBuf;

/// A file in Markdown.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// What stands below one heading.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) pieces: Vec<Piece>,
}

/// Something to act on, and its line.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) line: usize,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// Words of a stage direction.
    Stage(String),
    /// A command and what it shows.
    Typed(Typed),
    /// A configuration, or a part of one.
    Toml(String),
    /// A block in another language: the language and the text.
    Other(String, String),
}

/// A command as the page shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Typed {
    /// The host; `None` if any will do.
    pub(crate) at: Option<usize>,
    pub(crate) command: String,
    pub(crate) exit: i32,
    /// Lines of output.
    pub(crate) shown: Vec<String>,
}

/// Prompts, and the host that each stands for.
const PROMPTS: &[(&str, Option<usize>)] =
    &[("alpha# ", Some(0)), ("beta# ", Some(1)), ("gamma# ", Some(WITNESS)), ("$ ", None)];
/// The host of the witness.
pub(crate) const WITNESS: usize = 2;
const STAGE: &str = "<!-- stage:";
const EXIT: &str = "# exit ";

impl Page {
    pub(crate) fn read(name: &'static str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, text }
    }

    /// The sections in order; what precedes the first heading belongs to the first.
    pub(crate) fn sections(&self) -> Vec<Section> {
        let mut sections = vec![Section { title: self.name.to_owned(), pieces: Vec::new() }];
        let mut lines = self.text.lines().enumerate();
        while let Some((index, text)) = lines.next() {
            let line = index + 1;
            if let Some(title) = text.strip_prefix("## ").or_else(|| text.strip_prefix("### ")) {
                sections.push(Section { title: title.to_owned(), pieces: Vec::new() });
                continue;
            }
            let pieces = &mut sections.last_mut().expect("there is a first one").pieces;
            if let Some(stage) = text.strip_prefix(STAGE) {
                let stage = stage.strip_suffix("-->").unwrap_or_else(|| {
                    panic!("{}:{line}: a stage direction is one line", self.name)
                });
                pieces.push(Piece { line, what: What::Stage(stage.trim().to_owned()) });
            } else if let Some(language) = text.strip_prefix("```") {
                let block: Vec<(usize, &str)> = lines
                    .by_ref()
                    .take_while(|(_, text)| *text != "```")
                    .map(|(index, text)| (index + 1, text))
                    .collect();
                self.push_block(pieces, line, language, &block);
            }
        }
        sections
    }

    fn push_block(
        &self,
        pieces: &mut Vec<Piece>,
        line: usize,
        language: &str,
        block: &[(usize, &str)],
    ) {
        let text = || block.iter().flat_map(|(_, line)| [line, "\n"]).collect::<String>();
        match language {
            "console" => pieces.extend(self.typed(block)),
            "toml" => pieces.push(Piece { line, what: What::Toml(text()) }),
            "" => panic!("{}:{line}: a block without a language", self.name),
            other => pieces.push(Piece { line, what: What::Other(other.to_owned(), text()) }),
        }
    }

    fn typed(&self, block: &[(usize, &str)]) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for &(line, text) in block {
            if let Some((at, command)) = prompt(text) {
                let (command, exit) = match command.split_once(EXIT) {
                    Some((command, exit)) => (command, exit.trim().parse().expect("a number")),
                    None => (command, 0),
                };
                let command = command.trim().to_owned();
                let typed = Typed { at, command, exit, shown: Vec::new() };
                pieces.push(Piece { line, what: What::Typed(typed) });
            } else if let Some(Piece { what: What::Typed(typed), .. }) = pieces.last_mut() {
                typed.shown.push(text.to_owned());
            } else {
                panic!("{}:{line}: output without a command", self.name);
            }
        }
        pieces
    }

    /// Everything between backticks in running text, with the line of its paragraph or row.
    pub(crate) fn inline_code(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut paragraph = String::new();
        let (mut first, mut is_fenced) = (1, false);
        // A fence, an empty line and a row of a table end what came before.
        for (index, line) in self.text.lines().chain([""]).enumerate() {
            let is_fence = line.starts_with("```");
            if is_fence || line.is_empty() || line.starts_with('|') {
                let parts = paragraph.split('`').skip(1).step_by(2);
                found.extend(parts.map(|part| (first, one_space(part))));
                paragraph.clear();
                first = index + 1;
            }
            is_fenced ^= is_fence;
            if !is_fenced && !is_fence {
                paragraph.push_str(line);
                paragraph.push(' ');
            }
        }
        found
    }

    /// First cells, in backticks, of the table below the line that starts with `after`.
    pub(crate) fn keys_of_table(&self, after: &str) -> Vec<String> {
        let start = self.text.lines().position(|line| line.starts_with(after));
        let start = start.unwrap_or_else(|| panic!("{}: no {after:?}", self.name));
        let rows = self.text.lines().skip(start + 1).skip_while(|line| !line.starts_with('|'));
        let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(ToOwned::to_owned).collect()
    }
}

/// The node and the command, if there is a prompt.
pub(crate) fn prompt(line: &str) -> Option<(Option<usize>, &str)> {
    PROMPTS.iter().find_map(|(prompt, at)| line.strip_prefix(prompt).map(|command| (*at, command)))
}

/// Words as a shell cuts them, single quotes included.
pub(crate) fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(ToOwned::to_owned));
        }
    }
    words
}

/// Whether some line of `output` has the parts of `shown` in order; `..` parts them.
pub(crate) fn is_shown(shown: &str, output: &str) -> bool {
    let shown = one_space(shown);
    let parts: Vec<&str> =
        shown.split("..").map(str::trim).filter(|part| !part.is_empty()).collect();
    output.lines().any(|line| {
        let line = one_space(line);
        let mut rest = line.as_str();
        parts.iter().all(|part| match rest.split_once(part) {
            Some((_, tail)) => {
                rest = tail;
                true
            }
            None => false,
        })
    })
}

fn one_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_is_shown_is_found_in_order() {
    assert!(is_shown(
        "vm1: this node is primary at epoch ..",
        "x\nvm1: this  node is primary at epoch 5"
    ));
    assert!(is_shown(
        "vm1 .. primary .. established",
        " vm1   primary  up-to-date  established 0 B"
    ));
    assert!(!is_shown(
        "vm1 .. established .. primary",
        " vm1   primary  up-to-date  established 0 B"
    ));
    assert!(is_shown("..", "anything"));
}

#[test]
fn words_are_cut_as_a_shell_does() {
    assert_eq!(
        words("curl -d '{\"keep\": \"alpha\"}' http://x"),
        ["curl", "-d", "{\"keep\": \"alpha\"}", "http://x"]
    );
}
