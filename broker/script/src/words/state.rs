//! The words about what the rules of a file remember: `state::get`, `state::set`, ...

use rhai::{Dynamic, FuncRegistration, INT, ImmutableString, Module, NativeCallContext};

use super::misplaced;
use crate::config::Config;
use crate::convert::{json_bytes, kind, parse_json};
use crate::run::{Frame, charge, step, with_frame};
use crate::state::{Call, KEY_BYTES_MAX};
use crate::view::Answer as Said;

/// The namespace of the words.
pub(crate) const NAMESPACE: &str = "state";

/// The words, as [`module`] registers them.
pub(crate) const WORDS: [&str; 7] = ["get", "set", "add", "remove", "contains", "keys", "clear"];

/// The words. Each is one step: nobody else changes the state meanwhile, nor until the run ends.
pub(crate) fn module(config: &Config) -> Module {
    let mut module = Module::new();
    let [get, set, add, remove, contains, keys, clear] = WORDS.map(|word| {
        // What they answer depends on more than what they are given.
        FuncRegistration::new(word).in_internal_namespace().with_purity(false).with_volatility(true)
    });
    get.clone().set_into_module(&mut module, |context: NativeCallContext<'_>, key: ImmutableString| {
        value(&context, &key, Dynamic::UNIT)
    });
    get.set_into_module(
        &mut module,
        |context: NativeCallContext<'_>, key: ImmutableString, otherwise: Dynamic| {
            value(&context, &key, otherwise)
        },
    );
    set.set_into_module(
        &mut module,
        |context: NativeCallContext<'_>, key: ImmutableString, value: Dynamic| {
            let value = json_bytes(&value)?;
            in_state(&context, Some(&key), |state| put(state, &key, value))
        },
    );
    add.set_into_module(
        &mut module,
        |context: NativeCallContext<'_>, key: ImmutableString, number: Dynamic| {
            in_state(&context, Some(&key), |state| {
                let sum = sum(&key, &read(state, &key)?.unwrap_or(Dynamic::from(0 as INT)), &number)?;
                put(state, &key, json_bytes(&sum)?)?;
                Ok(sum)
            })
        },
    );
    remove.set_into_module(&mut module, |context: NativeCallContext<'_>, key: ImmutableString| {
        in_state(&context, Some(&key), |state| {
            let value = read(state, &key)?.unwrap_or_default();
            state.remove(&key).map_err(|stop| stop.error())?;
            Ok(value)
        })
    });
    contains.set_into_module(&mut module, |context: NativeCallContext<'_>, key: ImmutableString| {
        in_state(&context, Some(&key), |state| Ok(state.get(&key).is_some()))
    });
    let keys_max = config.array_items_max;
    keys.set_into_module(&mut module, move |context: NativeCallContext<'_>| {
        in_state(&context, None, |state| all_keys(state, keys_max))
    });
    clear.set_into_module(&mut module, |context: NativeCallContext<'_>| {
        in_state(&context, None, |state| {
            let keys: Vec<String> = state.keys().filter_map(text).collect();
            for key in keys {
                step()?;
                state.remove(&key).map_err(|stop| stop.error())?;
            }
            Ok(())
        })
    });
    module.build_index();
    module
}

/// Lets `act` act upon the state of the file that is running: for the rest of the run, or in a test for this word.
fn in_state<T>(
    context: &NativeCallContext<'_>,
    key: Option<&str>,
    act: impl FnOnce(&mut Call) -> Said<T>,
) -> Said<T> {
    if let Some(key) = key {
        check_key(key)?;
    }
    let place = "in a handler or a test";
    let word = format!("{NAMESPACE}::{}", context.fn_name());
    with_frame(|frame| match frame {
        Frame::On(on) => act(on.state.held()?),
        Frame::Transform(run) => act(run.state.held()?),
        Frame::Test { state, .. } => {
            let answer = act(state.held()?)?;
            state.finish();
            Ok(answer)
        }
        Frame::Load { .. } => Err(misplaced(&word, place)),
    })
    .unwrap_or_else(|| Err(misplaced(&word, place)))
}

fn check_key(key: &str) -> Said<()> {
    match key.len() {
        0 => Err("a key of the state is empty".into()),
        bytes if bytes > KEY_BYTES_MAX => {
            Err(format!("a key of the state has {bytes} bytes, more than {KEY_BYTES_MAX}").into())
        }
        _ => Ok(()),
    }
}

fn value(context: &NativeCallContext<'_>, key: &str, otherwise: Dynamic) -> Said<Dynamic> {
    in_state(context, Some(key), |state| Ok(read(state, key)?.unwrap_or(otherwise)))
}

fn read(state: &Call, key: &str) -> Said<Option<Dynamic>> {
    let Some(value) = state.get(key) else { return Ok(None) };
    let text = std::str::from_utf8(&value)
        .map_err(|_| format!("what the state has for {key:?} is no text: it was not written by a rule"))?;
    parse_json(text).map(Some)
}

fn put(state: &mut Call, key: &str, value: Vec<u8>) -> Said<()> {
    charge(value.len())?;
    state.set(key, value).map_err(|stop| stop.error())
}

fn sum(key: &str, value: &Dynamic, number: &Dynamic) -> Said<Dynamic> {
    if let (Ok(value), Ok(number)) = (value.as_int(), number.as_int()) {
        let sum = value.checked_add(number);
        return sum.map(Dynamic::from).ok_or_else(|| {
            format!("the state's {key:?} is {value}: {number} more does not fit into 64 bits").into()
        });
    }
    Ok(Dynamic::from(as_number(key, "the state has", value)? + as_number(key, "it is to get", number)?))
}

fn as_number(key: &str, what: &str, value: &Dynamic) -> Said<f64> {
    value
        .as_float()
        .or_else(|_| value.as_int().map(|number| number as f64))
        .map_err(|_| format!("add() needs numbers; for {key:?} {what} {}", kind(value)).into())
}

fn all_keys(state: &Call, max: usize) -> Said<rhai::Array> {
    let mut keys = rhai::Array::new();
    for key in state.keys().filter_map(text) {
        step()?;
        if keys.len() >= max {
            let what = "Size of array".to_owned();
            return Err(rhai::EvalAltResult::ErrorDataTooLarge(what, rhai::Position::NONE).into());
        }
        keys.push(key.into());
    }
    Ok(keys)
}

/// Keys are texts: scripts have set them.
fn text(key: &bytes::Bytes) -> Option<String> {
    std::str::from_utf8(key).ok().map(str::to_owned)
}
