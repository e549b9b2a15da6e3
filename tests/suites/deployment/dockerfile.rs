//! The Dockerfile, as far as these tests read it.

use harness::repository;
use serde_json::Value;
use std::fs;

/// A stage: its name, what it starts from, and its instructions with their arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) base: String,
    pub(crate) instructions: Vec<(String, String)>,
}

impl Stage {
    /// The arguments of every instruction of a kind.
    pub(crate) fn all(&self, instruction: &str) -> Vec<&str> {
        let of_kind = self.instructions.iter().filter(|(kind, _)| kind == instruction);
        of_kind.map(|(_, arguments)| arguments.as_str()).collect()
    }

    /// The arguments of the last instruction of a kind: it is the one that counts.
    #[track_caller]
    pub(crate) fn last(&self, instruction: &str) -> &str {
        self.all(instruction).last().unwrap_or_else(|| panic!("{} has no {instruction}", self.name))
    }

    /// A command in its exec form, which needs no shell.
    #[track_caller]
    pub(crate) fn exec(&self, instruction: &str) -> Vec<String> {
        exec(self.last(instruction))
    }

    /// `--from` of a COPY, if it has one, its sources, and where they go.
    pub(crate) fn copies(&self) -> Vec<(Option<&str>, Vec<&str>, &str)> {
        let mut copies = Vec::new();
        for arguments in self.all("COPY") {
            let words: Vec<_> = arguments.split_whitespace().collect();
            let (options, places): (Vec<_>, Vec<_>) =
                words.into_iter().partition(|word| word.starts_with("--"));
            let from = options.iter().find_map(|option| option.strip_prefix("--from="));
            let (to, sources) = places.split_last().unwrap();
            copies.push((from, sources.to_vec(), *to));
        }
        copies
    }
}

/// Reads an exec form, such as `["relay", "serve"]`.
#[track_caller]
pub(crate) fn exec(arguments: &str) -> Vec<String> {
    let words: Value =
        serde_json::from_str(arguments).unwrap_or_else(|_| panic!("no exec form: {arguments}"));
    words.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The stages of the Dockerfile of this repository.
pub(crate) fn stages() -> Vec<Stage> {
    parse(&fs::read_to_string(repository().join("Dockerfile")).unwrap())
}

fn parse(text: &str) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut whole = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(part) = line.strip_suffix('\\') {
            whole.push_str(part.trim_end());
            whole.push(' ');
            continue;
        }
        whole.push_str(line);
        let (instruction, arguments) = whole.split_once(' ').unwrap();
        if instruction == "FROM" {
            let (base, name) = arguments.split_once(" AS ").unwrap_or_else(|| panic!("no name: {arguments}"));
            stages.push(Stage { name: name.to_owned(), base: base.to_owned(), instructions: Vec::new() });
        } else {
            let stage = stages.last_mut().expect("an instruction before the first FROM");
            stage.instructions.push((instruction.to_owned(), arguments.trim().to_owned()));
        }
        whole.clear();
    }
    assert!(whole.is_empty(), "the last line goes on");
    stages
}

#[test]
fn a_dockerfile_is_read_as_it_is_written() {
    let text = "FROM a:1 AS one\nRUN x \\\n # no\n && y\nFROM one AS two\nCOPY --from=one --chown=1:1 /a b /c/\nCMD [\"a\", \"\"]\n";
    let stages = parse(text);
    assert_eq!(stages[0].all("RUN"), ["x && y"]);
    assert_eq!(stages[1].base, "one");
    assert_eq!(stages[1].copies(), [(Some("one"), vec!["/a", "b"], "/c/")]);
    assert_eq!(stages[1].exec("CMD"), ["a", ""]);
}
