//! What is refused in a file before any of it runs: calls of functions that are nowhere, records for sinks that are
//! not there, and closures that could keep memory for ever.
//!
//! A closure that uses variables from around it shares them. Kept in a variable, it can hold itself, which
//! nothing ever frees, or another one that holds another one, to a depth that no stack takes. Given straight
//! to a function that calls it and lets go of it, it can do neither.

use std::collections::HashSet;

use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, ScriptFuncDef, Stmt};
use weirmq_core::hook::FailureKind;

use crate::fault::Fault;
use crate::standard::{is_known, words};
use crate::suggest::did_you_mean;
use crate::words::state;

/// The functions that a closure with variables from around it may be given to: they do not hand it on.
const TAKES_CLOSURES: [&str; 21] = [
    "on",
    "transform",
    "test",
    "filter",
    "map",
    "for_each",
    "some",
    "all",
    "find",
    "find_map",
    "index_of",
    "reduce",
    "reduce_rev",
    "retain",
    "drain",
    "sort",
    "order_by",
    "order",
    "dedup",
    "zip",
    "contains",
];

/// Looks through `ast` for what is refused. `sinks` are the names of those that there are, where that is known.
pub(crate) fn check(ast: &AST, sinks: Option<&[String]>) -> Result<(), Fault> {
    let names = Names::of(ast);
    let mut found = None;
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        found = fault_at(path, &names).or_else(|| sink_fault(path, &names, sinks?));
        found.is_none()
    });
    found.map_or(Ok(()), Err)
}

/// Whether `ast` says anywhere that something is to be remembered.
pub(crate) fn uses_state(ast: &AST) -> bool {
    let mut found = false;
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        found |= path.last().and_then(call_of).is_some_and(|(call, _)| is_about_state(call));
        !found
    });
    found
}

fn is_about_state(call: &FnCallExpr) -> bool {
    !call.namespace.is_empty() && call.namespace.root() == state::NAMESPACE
}

/// The names that a file gives itself.
struct Names<'a> {
    functions: HashSet<&'a str>,
    /// Variables: one that holds a function can be called by its name.
    variables: HashSet<String>,
}

impl<'a> Names<'a> {
    fn of(ast: &'a AST) -> Self {
        let definitions = || ast.iter_fn_def().map(|definition| -> &ScriptFuncDef { definition });
        let functions = definitions().map(|definition| definition.name.as_str()).collect();
        let parameters = definitions().flat_map(|definition| &definition.params);
        let mut variables: HashSet<String> = parameters.map(ToString::to_string).collect();
        ast.walk(&mut |path: &[ASTNode<'_>]| {
            if let Some(ASTNode::Stmt(Stmt::Var(variable, ..))) = path.last() {
                variables.insert(variable.0.name.to_string());
            }
            if let Some(ASTNode::Stmt(Stmt::For(parts, ..))) = path.last() {
                variables.insert(parts.0.name.to_string());
            }
            true
        });
        Self { functions, variables }
    }

    fn defines(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    fn knows(&self, name: &str) -> bool {
        is_known(name) || self.defines(name) || self.variables.contains(name)
    }
}

fn fault_at(path: &[ASTNode<'_>], names: &Names<'_>) -> Option<Fault> {
    let (node, above) = path.split_last()?;
    if let ASTNode::Stmt(Stmt::Share(variables)) = node {
        let taker = above.iter().nth_back(1).and_then(called);
        let harmless = taker.is_some_and(|name| TAKES_CLOSURES.contains(&name) && !names.defines(name));
        let variable = variables.first()?;
        return (!harmless).then(|| kept_closure(&variable.0.name, variable.0.pos));
    }
    let (call, position) = call_of(node)?;
    let name = call.name.as_str();
    if is_about_state(call) && !state::WORDS.contains(&name) {
        let suggestion = did_you_mean(name, state::WORDS.to_vec());
        let text = format!("there is no function '{}::{name}'{suggestion}", state::NAMESPACE);
        return Some(Fault::new(FailureKind::Unavailable, text, position));
    }
    if call.op_token.is_some() || !is_name(name) || !call.namespace.is_empty() || names.knows(name) {
        return None;
    }
    let mut known: Vec<&str> = words().collect();
    known.extend(names.functions.iter().copied());
    let suggestion = did_you_mean(name, known);
    let text = format!("there is no function '{name}'{suggestion}");
    Some(Fault::new(FailureKind::Unavailable, text, position))
}

/// A sink that is named in so many words, and that is none.
fn sink_fault(path: &[ASTNode<'_>], names: &Names<'_>, sinks: &[String]) -> Option<Fault> {
    let (call, _) = call_of(path.last()?)?;
    let Some(Expr::StringConstant(name, position)) = call.args.first() else { return None };
    let is_sink = call.name == "sink" && call.namespace.is_empty() && !names.defines("sink");
    if !is_sink || sinks.iter().any(|sink| *sink == **name) {
        return None;
    }
    let suggestion = did_you_mean(name, sinks.iter().map(String::as_str));
    let text = format!("there is no sink '{}' in the configuration{suggestion}", name.escape_debug());
    Some(Fault::new(FailureKind::Unavailable, text, *position))
}

fn call_of<'a>(node: &'a ASTNode<'_>) -> Option<(&'a FnCallExpr, Position)> {
    match node {
        ASTNode::Stmt(Stmt::FnCall(call, position)) | ASTNode::Expr(Expr::FnCall(call, position)) => {
            Some((call, *position))
        }
        _ => None,
    }
}

/// The name of the function that `node` calls, if it calls one.
fn called<'a>(node: &'a ASTNode<'_>) -> Option<&'a str> {
    let call: &FnCallExpr = match node {
        ASTNode::Stmt(Stmt::FnCall(call, _)) => call,
        ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _)) => call,
        _ => return None,
    };
    Some(&call.name)
}

/// Whether it is a name that a person wrote: the engine calls functions of its own too.
fn is_name(name: &str) -> bool {
    name != "curry" && name.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn kept_closure(variable: &str, position: Position) -> Fault {
    let text = format!(
        "a closure that uses '{variable}' from around it can only be given straight to on(), transform(), \
         test() or a function of arrays such as filter(); elsewhere, pass '{variable}' as a parameter"
    );
    Fault::new(FailureKind::Unavailable, text, position)
}
