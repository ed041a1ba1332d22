//! What all rules of one engine share: the script engine, the limits, and the set of rules that is live.

use std::sync::Arc;

use rhai::Dynamic;
use rhai::packages::{
    BasicArrayPackage, BasicBlobPackage, BasicMapPackage, BasicMathPackage, BitFieldPackage, CorePackage,
    LogicPackage, MoreStringPackage, Package,
};

use crate::config::Config;
use crate::report::LoadError;
use crate::rule::{Program, Rule};
use crate::run::{Remembered, tick};
use crate::state::States;
use crate::words;

/// The script engine and its limits. Immutable, shared by all threads.
pub(crate) struct Core {
    pub(crate) rhai: Arc<rhai::Engine>,
    pub(crate) config: Arc<Config>,
    pub(crate) states: Arc<States>,
    /// Whether it is a test's: then files have other states than those that they were loaded with.
    is_trial: bool,
}

/// The rules that are live together, in their order: by file name, then by line.
#[derive(Default)]
pub(crate) struct RuleSet {
    pub(crate) rules: Vec<Arc<Rule>>,
}

/// How deep an expression may be nested, at the top level of a file and in a function. What the parser's
/// and the evaluator's recursion are given stack for.
const EXPRESSION_DEPTH_MAX: usize = 64;

impl Core {
    /// An engine that knows the words of rules and keeps to the limits of `config`.
    ///
    /// # Errors
    /// [`LoadError::Config`] where a limit makes no sense.
    pub(crate) fn new(config: Config) -> Result<Arc<Self>, LoadError> {
        if let Some(fault) = config.fault() {
            return Err(LoadError::Config(fault));
        }
        let config = Arc::new(config);
        let mut rhai = language();
        limit(&mut rhai, &config);
        words::register(&mut rhai, &config);
        let states = Arc::new(States::new(Arc::clone(&config)));
        Ok(Arc::new(Self { rhai: Arc::new(rhai), config, states, is_trial: false }))
    }

    /// The same with no state so far, for a test.
    pub(crate) fn trial(&self) -> Arc<Self> {
        let (rhai, config) = (Arc::clone(&self.rhai), Arc::clone(&self.config));
        Arc::new(Self { rhai, states: Arc::new(States::new(Arc::clone(&config))), config, is_trial: true })
    }

    /// The state of a file, where it uses one.
    pub(crate) fn state_of(&self, program: &Program) -> Remembered {
        let state = program.state.as_ref().and_then(|state| {
            if self.is_trial { self.states.of(&program.file).ok() } else { Some(Arc::clone(state)) }
        });
        Remembered::new(state)
    }
}

/// The language without what reaches outside (`import`, clocks) or around the limits (`eval`, `curry`, which
/// can double a value with each call). What a package brings along all the same (`sleep`, `replace` and
/// `parse_json` without a bound) is answered by the words of the same name.
fn language() -> rhai::Engine {
    let mut rhai = rhai::Engine::new_raw();
    CorePackage::new().register_into_engine(&mut rhai);
    LogicPackage::new().register_into_engine(&mut rhai);
    BasicMathPackage::new().register_into_engine(&mut rhai);
    BitFieldPackage::new().register_into_engine(&mut rhai);
    MoreStringPackage::new().register_into_engine(&mut rhai);
    BasicArrayPackage::new().register_into_engine(&mut rhai);
    BasicBlobPackage::new().register_into_engine(&mut rhai);
    BasicMapPackage::new().register_into_engine(&mut rhai);
    for symbol in ["eval", "import", "export", "curry"] {
        rhai.disable_symbol(symbol);
    }
    rhai.set_strict_variables(true);
    rhai
}

fn limit(rhai: &mut rhai::Engine, config: &Config) {
    rhai.set_max_string_size(config.string_bytes_max)
        .set_max_array_size(config.array_items_max)
        .set_max_map_size(config.map_entries_max)
        .set_max_variables(config.variables_max)
        .set_max_call_levels(config.call_levels_max)
        .set_max_expr_depths(EXPRESSION_DEPTH_MAX, EXPRESSION_DEPTH_MAX)
        .set_max_modules(0)
        .set_max_functions(config.registrations_max.saturating_mul(4));
    // The engine's own count starts anew in callbacks that native functions call: the run's meter does not.
    rhai.set_max_operations(0).on_progress(|_| tick().map(Dynamic::from));
}
