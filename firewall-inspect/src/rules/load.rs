//! From files to a rule set: what is included, and the data that rules name.

use std::sync::Arc;

use super::Rules;
use crate::seclang::{self, Directive, Fault, Place, Stated};

/// Files within one another, at most.
const DEPTH: usize = 16;

/// Where rule files are. The errors say what is wrong.
pub trait Files {
    /// The files that a pattern means, sorted; one without `*`, `?` and `[` means itself.
    fn matching(&mut self, pattern: &str) -> Result<Vec<String>, String>;

    fn read(&mut self, path: &str) -> Result<Vec<u8>, String>;
}

impl Rules {
    /// Loads a rule set from files or patterns of files, in their order. What a file names is relative to it.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn load(patterns: &[String], files: &mut dyn Files) -> Result<Self, Vec<Fault>> {
        let mut loader = Loader { files, directives: Vec::new(), faults: Vec::new() };
        for pattern in patterns {
            let place = Place { file: pattern[..].into(), line: 1, column: 1 };
            loader.include(&place, pattern, 0);
        }
        if !loader.faults.is_empty() {
            return Err(loader.faults);
        }
        let Loader { files, directives, .. } = loader;
        Self::compile(&directives, &mut |file, name| files.read(&beside(file, name)))
    }
}

struct Loader<'f> {
    files: &'f mut dyn Files,
    directives: Vec<Stated<Directive>>,
    faults: Vec<Fault>,
}

impl Loader<'_> {
    fn include(&mut self, place: &Place, pattern: &str, depth: usize) {
        let fault = |message| Fault { place: place.clone(), message };
        if depth == DEPTH {
            return self.faults.push(fault(format!("more than {DEPTH} files include one another")));
        }
        let paths = match self.files.matching(pattern) {
            Ok(paths) => paths,
            Err(message) => return self.faults.push(fault(message)),
        };
        for path in paths {
            let text = self
                .files
                .read(&path)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|error| format!("{path}: {error}")));
            let text = match text {
                Ok(text) => text,
                Err(message) => {
                    self.faults.push(fault(message));
                    continue;
                }
            };
            let file: Arc<str> = path.into();
            match seclang::parse(&file, &text) {
                Ok(directives) => directives.into_iter().for_each(|directive| self.take(directive, depth)),
                Err(faults) => self.faults.extend(faults),
            }
        }
    }

    fn take(&mut self, directive: Stated<Directive>, depth: usize) {
        match &directive.value {
            Directive::Include(pattern) => {
                let pattern = beside(&directive.place.file, pattern);
                self.include(&directive.place, &pattern, depth + 1);
            }
            _ => self.directives.push(directive),
        }
    }
}

/// A path as a file names it: relative to where that is.
fn beside(file: &str, name: &str) -> String {
    match file.rfind('/') {
        Some(at) if !name.starts_with('/') => format!("{}/{name}", &file[..at]),
        _ => name.to_owned(),
    }
}
