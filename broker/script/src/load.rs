//! From rule files to rules: reading the folder, compiling, registering.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rhai::{Caches, FnPtr, Position, Scope};
use weirmq_core::hook::FailureKind;

use crate::engine::{Core, RuleSet};
use crate::fault::Fault;
use crate::report::{Report, ScriptError};
use crate::rule::{Program, Rule, Stats, panicked};
use crate::run::{Budget, Frame, Registered, Registration, run};
use crate::testing::TestCase;
use crate::words::getters;

/// The rules folder as it was seen last.
#[derive(Default)]
pub(crate) struct Folder {
    files: BTreeMap<String, File>,
}

/// One rule file.
#[derive(Default)]
struct File {
    /// What was read last; `None` where that failed.
    source: Option<Vec<u8>>,
    /// What is live of it.
    live: Option<Compiled>,
    /// What is wrong with what was read last.
    fault: Option<ScriptError>,
}

/// What a file registers.
pub(crate) struct Compiled {
    rules: Vec<Arc<Rule>>,
    tests: Vec<TestCase>,
}

impl Folder {
    /// Reads the folder again: compiles what is new or changed, forgets what is gone. Says what it did.
    ///
    /// # Errors
    /// What the system says when the folder cannot be listed. Nothing has changed then.
    pub(crate) fn refresh(&mut self, core: &Core) -> io::Result<Report> {
        let names = rule_files(&core.config.folder)?;
        let mut report = Report::default();
        self.forget_all_but(&names, &mut report);
        for (place, name) in names.iter().enumerate() {
            if place < core.config.files_max {
                self.refresh_file(core, name, &mut report);
            } else {
                self.refuse_surplus(core, name, &mut report);
            }
        }
        Ok(report)
    }

    /// All live rules, by file name and then by line.
    pub(crate) fn rules(&self) -> RuleSet {
        let live = self.files.values().filter_map(|file| file.live.as_ref());
        RuleSet { rules: live.flat_map(|compiled| compiled.rules.iter().cloned()).collect() }
    }

    /// All tests, by file name and then by line.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &TestCase> {
        self.files.values().filter_map(|file| file.live.as_ref()).flat_map(|compiled| &compiled.tests)
    }

    fn forget_all_but(&mut self, names: &[String], report: &mut Report) {
        self.files.retain(|name, file| {
            let stays = names.binary_search(name).is_ok();
            if !stays && file.live.is_some() {
                report.removed.push(name.clone());
            }
            stays
        });
    }

    fn refresh_file(&mut self, core: &Core, name: &str, report: &mut Report) {
        let source = read(&core.config.folder.join(name), core.config.file_bytes_max);
        let file = self.files.entry(name.to_owned()).or_default();
        if let (Ok(source), Some(known)) = (&source, &file.source) {
            if source == known {
                match &file.fault {
                    None => report.unchanged.push(name.to_owned()),
                    Some(fault) => report.still_broken.push(fault.clone()),
                }
                return;
            }
        }
        let compiled = match &source {
            Ok(source) => {
                let taken = self.names_outside(name);
                let former = self.files.get(name).and_then(|file| file.live.as_ref());
                compile(core, name, source, &taken, former)
            }
            Err(fault) => Err(Fault::new(FailureKind::Unavailable, fault.clone(), Position::NONE)),
        };
        self.take_over(name, source.ok(), compiled, report);
    }

    fn take_over(
        &mut self,
        name: &str,
        source: Option<Vec<u8>>,
        compiled: Result<Compiled, Fault>,
        report: &mut Report,
    ) {
        let file = self.files.entry(name.to_owned()).or_default();
        file.source = source;
        match compiled {
            Ok(compiled) => {
                let former = file.live.replace(compiled);
                file.fault = None;
                let list = if former.is_some() { &mut report.replaced } else { &mut report.loaded };
                list.push(name.to_owned());
            }
            Err(fault) => {
                let error = fault.script_error(name, file.live.is_some());
                // A file that cannot be read is tried again each time, but told once.
                let list = match &file.fault {
                    Some(known) if *known == error && file.source.is_none() => &mut report.still_broken,
                    _ => &mut report.errors,
                };
                list.push(error.clone());
                file.fault = Some(error);
            }
        }
    }

    fn refuse_surplus(&mut self, core: &Core, name: &str, report: &mut Report) {
        let text = format!(
            "there are more than {} rule files in the folder (files_max): this one is not loaded",
            core.config.files_max
        );
        let fault = Fault::new(FailureKind::Unavailable, text, Position::NONE);
        if self.files.get(name).is_some_and(|file| file.live.is_some()) {
            report.unchanged.push(name.to_owned());
        } else {
            self.take_over(name, None, Err(fault), report);
        }
    }

    /// The names of live rules in other files, with their places.
    fn names_outside(&self, name: &str) -> HashMap<Arc<str>, String> {
        let others = self.files.iter().filter(|(other, _)| *other != name);
        let rules = others.filter_map(|(_, file)| file.live.as_ref()).flat_map(|compiled| &compiled.rules);
        rules.map(|rule| (Arc::clone(&rule.name), place(&rule.program.file, rule.position))).collect()
    }
}

/// The names of the rule files in `folder`, sorted.
fn rule_files(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            tracing::warn!(file = ?entry.file_name(), "a file whose name is no UTF-8 is not read as a rule");
            continue;
        };
        if name.ends_with(".rhai") && !name.starts_with('.') && !entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let fault = |error: io::Error| format!("the file cannot be read: {error}");
    let file = fs::File::open(path).map_err(fault)?;
    let mut source = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut source).map_err(fault)?;
    if source.len() as u64 > bytes_max {
        return Err(format!("the file is longer than {bytes_max} bytes (file_bytes_max)"));
    }
    Ok(source)
}

/// Compiles `source` and runs its top level. Rules that keep their name keep their counters.
fn compile(
    core: &Core,
    file: &str,
    source: &[u8],
    taken: &HashMap<Arc<str>, String>,
    former: Option<&Compiled>,
) -> Result<Compiled, Fault> {
    let source = text(source)?;
    let (outcome, frame) =
        run(Frame::Load(Vec::new()), Budget::of_a_file(&core.config), || execute(core, file, source));
    let program = outcome.unwrap_or_else(|| Err(panicked(Position::NONE)))?;
    let registrations = match frame {
        Some(Frame::Load(registrations)) => registrations,
        _ => Vec::new(),
    };
    assemble(file, &Arc::new(program), registrations, taken, former)
}

fn text(source: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(source).map_err(|error| {
        let good = source.get(..error.valid_up_to()).and_then(|good| std::str::from_utf8(good).ok());
        let good = good.unwrap_or_default();
        let line = good.split('\n').count();
        let column = good.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        let fits = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let position = Position::new(fits(line), fits(column));
        Fault::new(FailureKind::Unavailable, "the file is no UTF-8 text", position)
    })
}

/// Compiles `source` and runs its top level, which registers rules in the run's frame.
fn execute(core: &Core, file: &str, source: &str) -> Result<Program, Fault> {
    let ast = core.rhai.compile(source).map_err(|error| Fault::of_parse(&error, source))?;
    let mut global = core.rhai.new_global_runtime_state();
    global.source = Some(file.into());
    // Function pointers to closures are looked up in the first module.
    global.lib.push(ast.shared_lib().clone());
    global.lib.push(getters(&ast).into());
    // The one way to keep the constants that functions may use as `global::NAME`.
    #[allow(deprecated)]
    let evaluated =
        core.rhai.eval_statements_raw(&mut global, &mut Caches::new(), &mut Scope::new(), ast.statements());
    match evaluated.map_err(|error| *error) {
        Ok(_) | Err(rhai::EvalAltResult::Exit(..) | rhai::EvalAltResult::Return(..)) => {}
        Err(error) => return Err(Fault::of_run(Box::new(error))),
    }
    Ok(Program { file: Arc::from(file), global })
}

fn assemble(
    file: &str,
    program: &Arc<Program>,
    registrations: Vec<Registration>,
    taken: &HashMap<Arc<str>, String>,
    former: Option<&Compiled>,
) -> Result<Compiled, Fault> {
    let mut compiled = Compiled { rules: Vec::new(), tests: Vec::new() };
    for Registration { name, what, mut callback, position } in registrations {
        let wanted = match what {
            Registered::Rule(..) => 1,
            Registered::Test => 0,
        };
        check_parameters(program, &callback, wanted, position)?;
        freeze(&mut callback);
        match what {
            Registered::Test => {
                let name = name.unwrap_or_default();
                compiled.tests.push(TestCase { name, program: Arc::clone(program), body: callback, position });
            }
            Registered::Rule(kind, pattern) => {
                let name = rule_name(file, name, position, &compiled.rules, taken)?;
                let stats = former.and_then(|former| former.stats_of(&name)).unwrap_or_default();
                let program = Arc::clone(program);
                compiled.rules.push(Arc::new(Rule { name, kind, pattern, program, callback, position, stats }));
            }
        }
    }
    compiled.rules.sort_by_key(|rule| (rule.position.line(), rule.position.position()));
    Ok(compiled)
}

impl Compiled {
    fn stats_of(&self, name: &str) -> Option<Arc<Stats>> {
        self.rules.iter().find(|rule| *rule.name == *name).map(|rule| Arc::clone(&rule.stats))
    }
}

/// Checks that the handler takes what it will be given, at load rather than when a message comes.
fn check_parameters(
    program: &Program,
    callback: &FnPtr,
    wanted: usize,
    position: Position,
) -> Result<(), Fault> {
    let Some(library) = program.global.lib.first() else {
        return Ok(());
    };
    let found = library.iter_script_fn_info().find_map(|(_, _, name, parameters, _)| {
        (name == callback.fn_name()).then(|| parameters.saturating_sub(callback.curry().len()))
    });
    let text = match (found, wanted) {
        (Some(found), _) if found == wanted => return Ok(()),
        (Some(found), 0) => format!("the body of a test takes no parameter, this one takes {found}: write || {{ ... }}"),
        (Some(found), _) => {
            format!("a handler takes one parameter, the message, this one takes {found}: write |msg| {{ ... }}")
        }
        (None, _) => format!("'{}' is no function of this file", callback.fn_name()),
    };
    Err(Fault::new(FailureKind::Unavailable, text, position))
}

/// Makes the variables that a handler uses from around it its own: as they are now, for every run, on
/// whatever thread. Left shared, runs would wait for each other and see each other's changes.
fn freeze(callback: &mut FnPtr) {
    for value in callback.iter_curry_mut() {
        *value = value.flatten_clone();
    }
}

fn rule_name(
    file: &str,
    given: Option<String>,
    position: Position,
    earlier: &[Arc<Rule>],
    taken: &HashMap<Arc<str>, String>,
) -> Result<Arc<str>, Fault> {
    let is_taken = |name: &str| taken.contains_key(name) || earlier.iter().any(|rule| *rule.name == *name);
    let Some(name) = given else {
        let stem = file.strip_suffix(".rhai").unwrap_or(file);
        let name = format!("{stem}:{}", position.line().unwrap_or(0));
        let numbered = (2_usize..).map(|number| format!("{name}#{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !is_taken(name));
        return Ok(Arc::from(free.unwrap_or(name)));
    };
    let holder = earlier
        .iter()
        .find(|rule| *rule.name == *name)
        .map(|rule| place(file, rule.position))
        .or_else(|| taken.get(name.as_str()).cloned());
    match holder {
        None => Ok(Arc::from(name)),
        Some(holder) => {
            let text = format!("a rule called {name:?} is registered at {holder} already: names are unique");
            Err(Fault::new(FailureKind::Unavailable, text, position))
        }
    }
}

fn place(file: &str, position: Position) -> String {
    format!("{file}:{}", position.line().unwrap_or(0))
}
