//! `rules` and `[[api.exclude]]`: content rules from SecLang files, compiled.
//!
//! In: paths and patterns of rule files, and what of them is not to be applied where. Out: a [`RuleSet`]. Whatever is read or
//! looked up goes to the files to be watched, folders that a pattern looks through included. A rule set of which nothing
//! changed since it was last compiled is that one again, as long as somebody uses it.

mod exclude;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hasher as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use firewall_inspect::{
    rules::{Files, Rules},
    seclang::{Fault, Place},
};

use crate::{
    config::{
        lower::folder_path,
        raw::{Table, Value},
        read,
        report::{Errors, Problem, Source, quoted},
    },
    memory,
};

/// Largest rule file, or file of data that a rule names, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The name of what `[[api.exclude]]` says, as a rule file: no path.
const EXCLUSIONS: &str = "\0exclude";

/// Rule sets in use, so that a reload that changes none of their files need not compile them again.
static IN_USE: Mutex<Vec<Weak<Loaded>>> = Mutex::new(Vec::new());

/// A rule set. Equal if it is the same one, and not compiled anew.
#[derive(Clone, Debug)]
pub struct RuleSet(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    rules: Arc<Rules>,
    patterns: Vec<String>,
    exclusions: String,
    /// What was asked while it was loaded, and a hash of each answer.
    asked: Vec<(Question, u64)>,
}

#[derive(Clone, Debug)]
enum Question {
    Matching(String),
    Read(String),
}

impl RuleSet {
    /// The rules themselves.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.0.rules
    }

    /// Whether rules look into answers.
    pub fn reads_answers(&self) -> bool {
        self.0.rules.settings.response_body.inspected
    }

    /// Loads files, or what patterns match, one after the other.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn load(patterns: &[PathBuf]) -> Result<Self, Errors> {
        let patterns: Vec<String> = patterns.iter().map(|path| path.display().to_string()).collect();
        let mut disk = Disk::default();
        compile(&patterns, String::new(), &mut disk).map_err(|faults| {
            let mut report = Report::default();
            let whole = Source::new(patterns.join(" "), "");
            let problems = faults.iter().map(|fault| {
                report.problem(fault, &disk).unwrap_or_else(|| Problem::new(&whole, 0..0, fault.message.clone()))
            });
            Errors::new(problems.collect(), disk.files)
        })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        memory::retire(Arc::clone(&self.rules) as _);
    }
}

impl PartialEq for RuleSet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Reads `rules` and `exclude` of an API.
pub(super) fn lower(table: &Table<'_>, folder: &Path, files: &mut Vec<PathBuf>) -> Option<RuleSet> {
    let exclusions = exclude::lower(table);
    let value = table.get("rules");
    let Some(value) = value else {
        if let Some(value) = table.get("exclude") {
            let help = "name the rule files in `rules`, or remove it".to_owned();
            value.problem("`exclude` without `rules` means nothing", help);
        }
        return None;
    };
    let items = value.clone().one_or_more();
    if items.is_empty() {
        let help = "name rule files or patterns of them, or leave `rules` out".to_owned();
        value.problem("`rules` is empty", help);
        return None;
    }
    let mut places: Vec<(String, Value<'_>)> = Vec::new();
    for item in items {
        places.push((folder_path(&item, folder)?.display().to_string(), item));
    }
    let patterns: Vec<String> = places.iter().map(|(pattern, _)| pattern.clone()).collect();
    let mut disk = Disk::default();
    let result = compile(&patterns, exclusions, &mut disk);
    files.append(&mut disk.files);
    let faults = match result {
        Ok(set) => return Some(set),
        Err(faults) => faults,
    };
    let mut report = Report::default();
    for fault in faults {
        match report.problem(&fault, &disk) {
            Some(problem) => table.context.push(|| problem),
            None => {
                let place = places.iter().find(|(pattern, _)| **pattern == *fault.place.file);
                place.map_or(&value, |(_, item)| item).problem(fault.message, None);
            }
        }
    }
    None
}

fn compile(patterns: &[String], exclusions: String, disk: &mut Disk) -> Result<RuleSet, Vec<Fault>> {
    let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    in_use.retain(|set| set.strong_count() > 0);
    for set in in_use.iter().filter_map(Weak::upgrade) {
        if set.patterns == patterns && set.exclusions == exclusions {
            let mut again = Disk { exclusions: exclusions.clone(), ..Disk::default() };
            if set.asked.iter().all(|(question, answer)| again.ask(question) == *answer) {
                disk.files = again.files;
                return Ok(RuleSet(set));
            }
        }
    }
    disk.exclusions.clone_from(&exclusions);
    let mut all = patterns.to_vec();
    if !exclusions.is_empty() {
        all.insert(0, EXCLUSIONS.to_owned());
    }
    let mut own = std::mem::take(disk);
    let (loaded, own) = memory::make(move || (Rules::load(&all, &mut own), own));
    *disk = own;
    let rules = Arc::new(loaded?);
    let asked = std::mem::take(&mut disk.asked);
    let loaded = Arc::new(Loaded { rules, patterns: patterns.to_vec(), exclusions, asked });
    in_use.push(Arc::downgrade(&loaded));
    Ok(RuleSet(loaded))
}

/// Rule files where they are, and what was asked of them.
#[derive(Default)]
struct Disk {
    exclusions: String,
    asked: Vec<(Question, u64)>,
    files: Vec<PathBuf>,
    /// What was read, for reports.
    texts: HashMap<String, Vec<u8>>,
}

impl Disk {
    /// A hash of the answer.
    fn ask(&mut self, question: &Question) -> u64 {
        match question {
            Question::Matching(pattern) => hash(&self.matching(pattern)),
            Question::Read(path) => hash(&self.read(path)),
        }
    }

    fn watch(&mut self, path: &Path) {
        self.files.push(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    }

    fn find(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        if pattern == EXCLUSIONS || !pattern.contains(['*', '?', '[']) {
            return Ok(vec![pattern.to_owned()]);
        }
        if let Some(folder) = Path::new(pattern).parent().filter(|folder| folder.is_dir()) {
            self.watch(folder);
        }
        let found = glob::glob(pattern).map_err(|error| format!("{}: {}", quoted(pattern), error.msg))?;
        let paths: Result<Vec<_>, _> = found.collect();
        let paths = paths.map_err(|error| error.to_string())?;
        if paths.is_empty() {
            return Err(format!("no file matches {}", quoted(pattern)));
        }
        let text = |path: PathBuf| path.into_os_string().into_string();
        let paths: Result<Vec<_>, _> = paths.into_iter().map(text).collect();
        paths.map_err(|path| format!("{}: the name is not UTF-8", path.display()))
    }
}

impl Files for Disk {
    fn matching(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        let found = self.find(pattern);
        self.asked.push((Question::Matching(pattern.to_owned()), hash(&found)));
        found
    }

    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        if path == EXCLUSIONS {
            return Ok(self.exclusions.clone().into_bytes());
        }
        self.watch(Path::new(path));
        let text = read(Path::new(path), MAX_FILE).map_err(|cause| format!("cannot read {}: {cause}", quoted(path)));
        self.asked.push((Question::Read(path.to_owned()), hash(&text)));
        if let Ok(text) = &text {
            self.texts.insert(path.to_owned(), text.clone());
        }
        text
    }
}

fn hash(answer: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    answer.hash(&mut hasher);
    hasher.finish()
}

/// Faults of rule files, each with the text around it.
#[derive(Default)]
struct Report {
    sources: HashMap<Arc<str>, Arc<Source>>,
}

impl Report {
    /// `None` for a fault that is in no file: one that could not be read, or what the configuration itself says.
    fn problem(&mut self, fault: &Fault, disk: &Disk) -> Option<Problem> {
        let Place { file, line, column } = &fault.place;
        let text = String::from_utf8_lossy(disk.texts.get(&**file)?);
        let source = self.sources.entry(Arc::clone(file)).or_insert_with(|| Source::new(&**file, &text));
        let start: usize = source.text().split_inclusive('\n').take(*line as usize - 1).map(str::len).sum();
        let rest = source.text()[start..].chars().take(*column as usize - 1).map(char::len_utf8).sum::<usize>();
        Some(Problem::new(source, start + rest..start + rest + 1, fault.message.clone()))
    }
}
