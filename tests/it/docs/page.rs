//! Fenced blocks, commands, headings and links of a Markdown page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Languages that a block may name.
const LANGUAGES: &[&str] = &["console", "js", "json", "output", "sh", "text", "toml", "yaml"];

/// A fenced block.
pub struct Block {
    /// Line of the opening fence, from 1.
    pub line: usize,
    pub language: String,
    /// What stands behind the language.
    marks: String,
    pub text: String,
}

/// A command and what the page says that it prints.
pub struct ShownOutput {
    /// Line of the command, from 1.
    pub line: usize,
    pub text: String,
    /// `None` where the page shows no output.
    pub shown: Option<String>,
    pub numbers_vary: bool,
}

pub struct Page {
    /// Relative to the root of the repository.
    pub path: PathBuf,
    /// Every line, and whether it is outside blocks.
    lines: Vec<(String, bool)>,
    pub blocks: Vec<Block>,
}

impl Page {
    pub fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(root.join(path)).expect("a readable page");
        let (mut lines, mut blocks) = (Vec::new(), Vec::<Block>::new());
        let mut open = false;
        for (index, line) in text.lines().enumerate() {
            let fence = line.strip_prefix("```");
            match (fence, open) {
                (Some(first), false) => {
                    let (language, marks) = first.split_once(' ').unwrap_or((first, ""));
                    let (language, marks) = (language.to_owned(), marks.to_owned());
                    blocks.push(Block { line: index + 1, language, marks, text: String::new() });
                }
                (None, true) => {
                    let block = blocks.last_mut().expect("a block is open");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (Some(_), true) | (None, false) => {}
            }
            let outside = fence.is_none() && !open;
            open ^= fence.is_some();
            lines.push((line.to_owned(), outside));
        }
        assert!(!open, "{}: the last block has no end", path.display());
        Self { path: path.to_owned(), lines, blocks }
    }

    /// Blocks that no rule of this test covers.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut tell = |line: usize, what: String| faults.push(format!("{}:{line}: {what}", self.path.display()));
        for (index, block) in self.blocks.iter().enumerate() {
            if !LANGUAGES.contains(&&*block.language) {
                tell(block.line, format!("the language {:?} is none of {}", block.language, LANGUAGES.join(", ")));
            }
            if let Err(mark) = block.parse_marks() {
                tell(block.line, format!("the mark {mark:?} is neither ignore-reason=\"…\" nor varies=\"numbers\""));
            }
            let follows_commands = index.checked_sub(1).is_some_and(|before| self.blocks[before].language == "sh");
            if block.language == "output" && !follows_commands {
                tell(block.line, "no commands stand before this output".to_owned());
            }
            if block.language == "console" && !block.text.starts_with("$ ") {
                tell(block.line, "a console block begins with a command behind \"$ \"".to_owned());
            }
        }
        let mut blank = true;
        for (index, (line, outside)) in self.lines.iter().enumerate() {
            // After a blank line, four spaces make a block that names no language.
            if *outside && blank && line.starts_with("    ") {
                tell(index + 1, "an indented block; put it between fences with a language".to_owned());
            }
            blank = line.trim().is_empty();
        }
        faults
    }

    /// The commands that can be run, in order.
    pub fn commands(&self) -> Vec<ShownOutput> {
        let mut commands = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let marks = block.parse_marks().unwrap_or_default();
            if marks.ignored {
                continue;
            }
            match &*block.language {
                "sh" => {
                    let output = self.blocks.get(index + 1).filter(|next| next.language == "output");
                    let next_marks = output.and_then(|next| next.parse_marks().ok()).unwrap_or_default();
                    commands.push(ShownOutput {
                        line: block.line + 1,
                        text: block.text.clone(),
                        shown: output.map(|next| next.text.clone()),
                        numbers_vary: next_marks.numbers_vary,
                    });
                }
                "console" => commands.extend(block.console_commands(marks.numbers_vary)),
                _ => {}
            }
        }
        commands
    }

    /// Targets of relative links outside blocks, with their lines.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (index, (line, _)) in self.lines.iter().enumerate().filter(|(_, (_, outside))| *outside) {
            for rest in line.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default();
                if !target.contains("://") {
                    links.push((index + 1, target.to_owned()));
                }
            }
        }
        links
    }
}

#[derive(Default)]
struct Marks {
    ignored: bool,
    numbers_vary: bool,
}

impl Block {
    /// # Errors
    ///
    /// The first mark that is not known.
    fn parse_marks(&self) -> Result<Marks, String> {
        let mut marks = Marks::default();
        let mut rest = self.marks.trim();
        while !rest.is_empty() {
            let unknown = || rest.to_owned();
            let (name, behind) = rest.split_once("=\"").ok_or_else(unknown)?;
            let (value, behind) = behind.split_once('"').ok_or_else(unknown)?;
            match (name, value) {
                ("ignore-reason", reason) if !reason.trim().is_empty() => marks.ignored = true,
                ("varies", "numbers") => marks.numbers_vary = true,
                _ => return Err(unknown()),
            }
            rest = behind.trim();
        }
        Ok(marks)
    }

    /// Each `$ ` line with its continuation lines, and the lines up to the next one.
    ///
    /// A line continues where it ends with a backslash, and where a here-document has not ended.
    fn console_commands(&self, numbers_vary: bool) -> Vec<ShownOutput> {
        let mut commands: Vec<ShownOutput> = Vec::new();
        let mut continues = false;
        let mut here_document: Option<String> = None;
        for (index, line) in self.text.lines().enumerate() {
            let command = line.strip_prefix("$ ").filter(|_| !continues && here_document.is_none());
            if let Some(text) = command {
                let line = self.line + 1 + index;
                commands.push(ShownOutput { line, text: format!("{text}\n"), shown: None, numbers_vary });
                here_document = text.split_once("<<").map(|(_, word)| word.trim_matches(['\'', '"']).to_owned());
                continues = text.ends_with('\\');
                continue;
            }
            let Some(last) = commands.last_mut() else { continue };
            if continues || here_document.is_some() {
                last.text.push_str(line);
                last.text.push('\n');
                continues = continues && line.ends_with('\\');
                here_document = here_document.filter(|end| end != line);
            } else {
                let shown = last.shown.get_or_insert_default();
                shown.push_str(line);
                shown.push('\n');
            }
        }
        commands
    }
}

/// The anchors that GitHub gives to the headings of a page.
pub fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}
