//! From rule files to rules: reading the folder, compiling, registering.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rhai::{Caches, Dynamic, FnPtr, GlobalRuntimeState, Position, Scope};
use weirmq_core::hook::FailureKind;

use crate::engine::{Core, RuleSet};
use crate::fault::Fault;
use crate::guard;
use crate::report::{Report, ScriptError};
use crate::rule::{Program, Rule, Stats, panicked};
use crate::run::{Budget, Frame, Registered, Registration, run, with_frame};
use crate::state::State;
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
    /// Whether that is only that another file has a rule of the same name.
    clash: bool,
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
        core.states.make_room();
        let (within, surplus) = names.split_at(names.len().min(core.config.files_max));
        for name in within {
            self.refresh_file(core, name, &mut report);
        }
        for name in surplus {
            self.refuse_surplus(core, name, &mut report);
        }
        self.retry_clashes(core, &mut report);
        Ok(report)
    }

    /// Tries files again whose rules' names were taken: a rule may have moved to them from a file that comes
    /// later.
    fn retry_clashes(&mut self, core: &Core, report: &mut Report) {
        while report.changed() {
            let mut freed = false;
            let waiting = self.files.iter().filter(|(_, file)| file.clash).map(|(name, _)| name.clone());
            for name in waiting.collect::<Vec<_>>() {
                let Some(source) = self.files.get_mut(&name).and_then(|file| file.source.take()) else {
                    continue;
                };
                let compiled = self.compile(core, &name, &source);
                freed |= compiled.is_ok();
                report.errors.retain(|error| error.file != name);
                report.still_broken.retain(|error| error.file != name);
                self.take_over(&name, Some(source), compiled, report);
            }
            if !freed {
                return;
            }
        }
    }

    fn compile(&self, core: &Core, name: &str, source: &[u8]) -> Result<Compiled, Fault> {
        let former = self.files.get(name).and_then(|file| file.live.as_ref());
        compile(core, name, source, &self.names_outside(name), former)
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
        if let (Ok(source), Some(known)) = (&source, &file.source)
            && source == known
        {
            match &file.fault {
                None => report.unchanged.push(name.to_owned()),
                Some(fault) => report.still_broken.push(fault.clone()),
            }
            return;
        }
        let compiled = match &source {
            Ok(source) => self.compile(core, name, source),
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
        file.clash = compiled.as_ref().is_err_and(|fault| fault.clash);
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
    // A pipe or a device could keep the reader waiting for ever.
    if !fs::metadata(path).map_err(fault)?.is_file() {
        return Err("it is no file".to_owned());
    }
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
    let frame = Frame::Load { registrations: Vec::new(), lines: 0 };
    // All of it is inside the run: what is refused is released where there is stack for that.
    let (outcome, _) = run(frame, Budget::of_a_file(&core.config), || {
        let program = Arc::new(execute(core, file, source)?);
        let registrations = with_frame(|frame| match frame {
            Frame::Load { registrations, .. } => std::mem::take(registrations),
            _ => Vec::new(),
        });
        assemble(file, &program, registrations.unwrap_or_default(), taken, former)
    });
    outcome.unwrap_or_else(|| Err(panicked(Position::NONE)))
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
    guard::check(&ast, core.config.sinks.as_deref())?;
    let state = if guard::uses_state(&ast) { Some(state_of(core, file)?) } else { None };
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
        Err(error) => return Err(Fault::of_run(error)),
    }
    check_constants(&global)?;
    Ok(Program { file: Arc::from(file), state, global })
}

fn state_of(core: &Core, file: &str) -> Result<Arc<State>, Fault> {
    core.states.of(file).map_err(|error| {
        let text = format!("its state cannot be read back: {error}");
        Fault::new(FailureKind::Unavailable, text, Position::NONE)
    })
}

fn assemble(
    file: &str,
    program: &Arc<Program>,
    registrations: Vec<Registration>,
    taken: &HashMap<Arc<str>, String>,
    former: Option<&Compiled>,
) -> Result<Compiled, Fault> {
    let mut compiled = Compiled { rules: Vec::new(), tests: Vec::new() };
    for Registration { name, what, callback, position } in registrations {
        let wanted = match what {
            Registered::Rule(..) => 1,
            Registered::Test => 0,
        };
        check_parameters(program, &callback, wanted, position)?;
        check_kept(&callback, position)?;
        match what {
            Registered::Test => {
                let name = name.unwrap_or_default();
                compiled.tests.push(TestCase {
                    name,
                    program: Arc::clone(program),
                    body: callback,
                    position,
                });
            }
            Registered::Rule(kind, pattern) => {
                let name = rule_name(file, name, position, &compiled.rules, taken)?;
                let stats = former.and_then(|former| former.stats_of(&name)).unwrap_or_default();
                let program = Arc::clone(program);
                compiled.rules.push(Arc::new(Rule {
                    name,
                    kind,
                    pattern,
                    program,
                    callback,
                    position,
                    stats,
                }));
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
        (Some(found), 0) => {
            format!("the body of a test takes no parameter, this one takes {found}: write || {{ ... }}")
        }
        (Some(found), _) => {
            format!(
                "a handler takes one parameter, the message, this one takes {found}: write |msg| {{ ... }}"
            )
        }
        (None, _) => format!("'{}' is no function of this file", callback.fn_name()),
    };
    Err(Fault::new(FailureKind::Unavailable, text, position))
}

/// Checks that what a handler keeps of the variables around it can be released anywhere.
fn check_kept(callback: &FnPtr, position: Position) -> Result<(), Fault> {
    if callback.curry().iter().all(|value| is_flat(value, 0)) {
        return Ok(());
    }
    Err(Fault::new(FailureKind::Memory, too_deep("a variable that the handler uses"), position))
}

/// How deep a value that outlives the loading of its file may be nested: whoever releases it last has a
/// stack of a size that nobody here knows.
const KEPT_DEPTH_MAX: usize = 64;

fn check_constants(global: &GlobalRuntimeState) -> Result<(), Fault> {
    let Some(constants) = &global.constants else {
        return Ok(());
    };
    let Ok(constants) = constants.read() else {
        return Err(Fault::new(FailureKind::Crash, "the constants cannot be read", Position::NONE));
    };
    match constants.iter().find(|(_, value)| !is_flat(value, 0)) {
        None => Ok(()),
        Some((name, _)) => {
            let text = too_deep(&format!("the constant '{name}'"));
            Err(Fault::new(FailureKind::Memory, text, Position::NONE))
        }
    }
}

fn too_deep(what: &str) -> String {
    format!("{what} is nested deeper than {KEPT_DEPTH_MAX} levels, or shared")
}

/// Whether `value` is nested no deeper than is good, and nobody else's.
fn is_flat(value: &Dynamic, depth: usize) -> bool {
    if depth > KEPT_DEPTH_MAX || value.is_shared() {
        return false;
    }
    if let Some(items) = value.read_lock::<rhai::Array>() {
        return items.iter().all(|item| is_flat(item, depth + 1));
    }
    if let Some(map) = value.read_lock::<rhai::Map>() {
        return map.values().all(|value| is_flat(value, depth + 1));
    }
    value.read_lock::<FnPtr>().is_none_or(|callback| callback.curry().is_empty())
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
            let here = earlier.iter().any(|rule| *rule.name == *name);
            Err(Fault { clash: !here, ..Fault::new(FailureKind::Unavailable, text, position) })
        }
    }
}

fn place(file: &str, position: Position) -> String {
    format!("{file}:{}", position.line().unwrap_or(0))
}
