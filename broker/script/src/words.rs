//! The words of rules: what a script can say beyond the script language itself.
//!
//! # Layout
//! - this file: messages, rules, tests
//! - `state`: what rules remember

pub(crate) mod state;

use std::sync::Arc;

use rhai::{
    AST, ASTNode, Dynamic, Engine, Expr, FnPtr, INT, ImmutableString, Map, Module, NativeCallContext,
    Position,
};
use weirmq_core::record::Record;

use crate::config::Config;
use crate::convert::{
    draft, draft_bytes, json_to_script, kind, parse_json, record_fields, same, shown, value_bytes, within,
};
use crate::fault::cut as fault_text;
use crate::pattern::Pattern;
use crate::report::RuleKind;
use crate::rule::{Logged, Rule};
use crate::run::{Answer, Frame, OnRun, Registered, Registration, Stop, TransformRun, charge, with_frame};
use crate::testing::deliver;
use crate::view::{Answer as Said, FIELDS, Json, Msg, Payload};

/// Teaches `engine` the words.
pub(crate) fn register(engine: &mut Engine, config: &Arc<Config>) {
    register_message(engine);
    register_payload(engine);
    register_json(engine);
    register_registration(engine, config);
    register_actions(engine, config);
    register_answers(engine, config);
    register_logging(engine, config);
    register_tests(engine);
    register_bounded(engine, config);
    engine.register_static_module(state::NAMESPACE, state::module(config).into());
}

/// Functions that read each property that `ast` names, straight. Without them the engine would look for a
/// getter in vain, make up an error, and only then ask the indexer: several times as slow.
pub(crate) fn getters(ast: &AST) -> Module {
    let mut module = Module::new();
    let mut known: std::collections::HashSet<ImmutableString> = FIELDS.map(ImmutableString::from).into();
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        if let Some(ASTNode::Expr(Expr::Property(property, _))) = path.last() {
            let name = property.2.clone();
            register_setters(&mut module, &name);
            register_json_getter(&mut module, &name);
            if known.insert(name.clone()) {
                register_capture_getter(&mut module, &name);
            }
        }
        true
    });
    module
}

/// After a method was called on what a property gave, the engine writes that back: `msg.json.list.len()` ends
/// with an assignment. It is taken for what it is where nothing has changed; an assignment that a script means
/// is refused.
fn register_setters(module: &mut Module, name: &ImmutableString) {
    register_setter::<Json>(module, name);
    register_setter::<Payload>(module, name);
    register_setter::<ImmutableString>(module, name);
    register_setter::<INT>(module, name);
    register_setter::<f64>(module, name);
    register_setter::<bool>(module, name);
    register_setter::<()>(module, name);
    register_setter::<Map>(module, name);
    register_setter::<rhai::Array>(module, name);
}

fn register_setter<T: rhai::Variant + Clone>(module: &mut Module, name: &ImmutableString) {
    let field = name.clone();
    module.set_setter_fn(name.as_str(), move |json: &mut Json, value: T| {
        json.keep(&field, &Dynamic::from(value))
    });
    let field = name.clone();
    module
        .set_setter_fn(name.as_str(), move |msg: &mut Msg, value: T| msg.keep(&field, &Dynamic::from(value)));
}

fn register_json_getter(module: &mut Module, name: &ImmutableString) {
    let field = name.clone();
    module.set_getter_fn(name.as_str(), move |json: &mut Json| json.field(&field));
    let field = name.clone();
    module.set_getter_fn(name.as_str(), move |_: &mut ()| -> Said<Dynamic> {
        Err(format!(
            "'{field}' is asked of (): what stands before it is not there; write '?.{field}' where it may \
             be missing"
        )
        .into())
    });
}

fn register_capture_getter(module: &mut Module, name: &ImmutableString) {
    let capture = name.clone();
    module.set_getter_fn(name.as_str(), move |msg: &mut Msg| msg.capture(&capture));
}

fn register_message(engine: &mut Engine) {
    engine
        .register_type_with_name::<Msg>("message")
        .register_get("topic", Msg::topic)
        .register_get("payload", Msg::payload)
        .register_get("text", Msg::text)
        .register_get("json", Msg::json)
        .register_get("qos", Msg::qos)
        .register_get("retain", Msg::retain)
        .register_get("time", Msg::time)
        .register_get("timestamp", Msg::timestamp)
        .register_get("client_id", Msg::client_id)
        .register_get("principal", Msg::principal)
        .register_get("content_type", Msg::content_type)
        .register_get("response_topic", Msg::response_topic)
        .register_fn("user", |msg: &mut Msg, key: ImmutableString| msg.user(&key))
        .register_indexer_get(|msg: &mut Msg, name: ImmutableString| msg.index(&name))
        .register_indexer_set(|msg: &mut Msg, name: ImmutableString, value: Dynamic| msg.keep(&name, &value));
}

fn register_payload(engine: &mut Engine) {
    engine
        .register_type_with_name::<Payload>("payload")
        .register_fn("len", Payload::len)
        .register_fn("is_empty", Payload::is_empty)
        .register_fn("slice", Payload::slice)
        .register_fn("text", Payload::text)
        .register_fn("hex", Payload::hex)
        .register_fn("to_blob", Payload::blob)
        .register_fn("to_string", Payload::text)
        .register_indexer_get(Payload::byte)
        .register_fn("==", |left: Payload, right: Payload| left == right)
        .register_fn("!=", |left: Payload, right: Payload| left != right);
}

fn register_json(engine: &mut Engine) {
    engine
        .register_type_with_name::<Json>("json")
        .register_fn("len", Json::len)
        .register_fn("is_empty", |json: &mut Json| json.len().map(|length| length == 0))
        .register_fn("keys", Json::keys)
        .register_fn("values", Json::values)
        .register_fn("contains", |json: &mut Json, key: ImmutableString| json.contains(&key))
        .register_fn("value", |json: &mut Json| json_to_script(json))
        .register_fn("to_string", json_text)
        .register_fn("to_debug", json_text)
        .register_indexer_get(|json: &mut Json, key: ImmutableString| json.field(&key))
        .register_indexer_get(Json::item)
        .register_iterator_result::<Json, Dynamic>()
        .register_indexer_set(|json: &mut Json, key: ImmutableString, value: Dynamic| json.keep(&key, &value))
        .register_indexer_set(|json: &mut Json, index: INT, value: Dynamic| json.keep_item(index, &value));
}

fn json_text(json: &mut Json) -> Said<ImmutableString> {
    let raw = json.raw()?;
    match std::str::from_utf8(&raw) {
        Ok(text) => Ok(text.into()),
        Err(error) => {
            Err(format!("the JSON is no UTF-8 text: byte {} of it is wrong", error.valid_up_to()).into())
        }
    }
}

fn register_registration(engine: &mut Engine, config: &Arc<Config>) {
    for (word, kind) in [("on", RuleKind::On), ("transform", RuleKind::Transform)] {
        let limits = Arc::clone(config);
        engine.register_fn(
            word,
            move |context: NativeCallContext<'_>, filter: ImmutableString, handler: FnPtr| {
                register_rule(&context, &limits, None, kind, &filter, handler)
            },
        );
        let limits = Arc::clone(config);
        engine.register_fn(
            word,
            move |context: NativeCallContext<'_>,
                  name: ImmutableString,
                  filter: ImmutableString,
                  handler: FnPtr| {
                register_rule(&context, &limits, Some(&name), kind, &filter, handler)
            },
        );
    }
    let limits = Arc::clone(config);
    engine.register_fn("test", move |context: NativeCallContext<'_>, name: ImmutableString, body: FnPtr| {
        register(&context, &limits, Some(&name), Registered::Test, body)
    });

    fn register_rule(
        context: &NativeCallContext<'_>,
        config: &Config,
        name: Option<&str>,
        kind: RuleKind,
        filter: &str,
        handler: FnPtr,
    ) -> Said<()> {
        let pattern = Pattern::parse(filter).map_err(|error| error.to_string())?;
        register(context, config, name, Registered::Rule(kind, pattern), handler)
    }

    fn register(
        context: &NativeCallContext<'_>,
        config: &Config,
        name: Option<&str>,
        what: Registered,
        mut callback: FnPtr,
    ) -> Said<()> {
        freeze(&mut callback);
        if name.is_some_and(|name| name.trim().is_empty()) {
            return Err("the name is empty".into());
        }
        let registration =
            Registration { name: name.map(str::to_owned), what, callback, position: context.call_position() };
        with_frame(|frame| match frame {
            Frame::Load { registrations, .. } if registrations.len() >= config.registrations_max => {
                Err("the file registers more rules and tests than registrations_max allows".into())
            }
            Frame::Load { registrations, .. } => {
                registrations.push(registration);
                Ok(())
            }
            _ => Err(misplaced(context.fn_name(), "at the top level of a file, when it is loaded")),
        })
        .unwrap_or_else(|| Err(misplaced(context.fn_name(), "at the top level of a file")))
    }
}

/// Makes the variables that a handler uses from around it its own: as they are now, for every run, on
/// whatever thread. Left shared, runs would wait for each other and see each other's changes.
fn freeze(callback: &mut FnPtr) {
    for value in callback.iter_curry_mut() {
        *value = value.flatten_clone();
    }
}

fn register_actions(engine: &mut Engine, config: &Arc<Config>) {
    let limits = Arc::clone(config);
    engine.register_fn(
        "publish",
        move |context: NativeCallContext<'_>, topic: ImmutableString, payload: Dynamic| {
            in_on_rule(&context, |on| publish(on, &limits, &topic, &payload, &Map::new()))
        },
    );
    let limits = Arc::clone(config);
    engine.register_fn(
        "publish",
        move |context: NativeCallContext<'_>, topic: ImmutableString, payload: Dynamic, options: Map| {
            in_on_rule(&context, |on| publish(on, &limits, &topic, &payload, &options))
        },
    );
    let limits = Arc::clone(config);
    engine.register_fn(
        "sink",
        move |context: NativeCallContext<'_>, sink: ImmutableString, fields: Dynamic| {
            in_on_rule(&context, |on| hand_to_sink(on, &limits, &sink, &fields))
        },
    );
}

fn publish(on: &mut OnRun, config: &Config, topic: &str, payload: &Dynamic, options: &Map) -> Said<()> {
    if on.actions.publish.len().saturating_sub(on.published_before) >= config.published_max {
        return Err(Stop::Published.error());
    }
    check_free(topic)?;
    let draft = draft(topic, payload, options, None)?;
    count_output(&mut on.output_bytes, draft_bytes(&draft), config)?;
    on.actions.publish.push((Arc::clone(&on.rule.name), draft));
    Ok(())
}

/// Topics that begin with `$` are the broker's own: a rule that published there could forge its figures, and
/// clients that read them trust them.
fn check_free(topic: &str) -> Said<()> {
    if topic.starts_with('$') {
        return Err(
            format!("{topic:?} is no topic for rules: those that begin with '$' are the broker's").into()
        );
    }
    Ok(())
}

/// A transform may leave a message where it is.
fn check_free_for(run: &TransformRun, topic: &str) -> Said<()> {
    if *run.message.topic == *topic { Ok(()) } else { check_free(topic) }
}

/// What a record takes besides its fields.
const RECORD_BYTES: usize = 64;

fn hand_to_sink(on: &mut OnRun, config: &Config, sink: &str, fields: &Dynamic) -> Said<()> {
    if on.actions.records.len().saturating_sub(on.records_before) >= config.records_max {
        return Err(Stop::Records.error());
    }
    if sink.is_empty() {
        return Err("the sink's name is empty".into());
    }
    let fields = record_fields(fields)?;
    let bytes: usize = fields.iter().map(|(key, value)| key.len() + value_bytes(value)).sum();
    count_output(&mut on.output_bytes, RECORD_BYTES + sink.len() + bytes, config)?;
    on.actions.records.push(Record {
        sink: Arc::from(sink),
        fields,
        rule: Arc::clone(&on.rule.name),
        created_unix_ms: on.now.unix_ms,
    });
    Ok(())
}

fn register_answers(engine: &mut Engine, config: &Arc<Config>) {
    let limits = Arc::clone(config);
    engine.register_fn(
        "replace",
        move |context: NativeCallContext<'_>, topic: ImmutableString, payload: Dynamic| {
            in_transform(&context, |run| replace(run, &limits, &topic, &payload, &Map::new()))
        },
    );
    let limits = Arc::clone(config);
    engine.register_fn(
        "replace",
        move |context: NativeCallContext<'_>, topic: ImmutableString, payload: Dynamic, options: Map| {
            in_transform(&context, |run| replace(run, &limits, &topic, &payload, &options))
        },
    );
    engine.register_fn("drop", |context: NativeCallContext<'_>, reason: ImmutableString| {
        in_transform(&context, |_| Ok(Answer::Drop(fault_text(reason.to_string()))))
    });
    let limits = Arc::clone(config);
    engine.register_fn("several", move |context: NativeCallContext<'_>, messages: rhai::Array| {
        in_transform(&context, |run| several(run, &limits, &messages))
    });
}

fn replace(
    run: &mut TransformRun,
    config: &Config,
    topic: &str,
    payload: &Dynamic,
    options: &Map,
) -> Said<Answer> {
    check_free_for(run, topic)?;
    let draft = draft(topic, payload, options, Some(&run.message))?;
    count_output(&mut run.output_bytes, draft_bytes(&draft), config)?;
    Ok(Answer::Replace(draft))
}

fn several(run: &mut TransformRun, config: &Config, messages: &[Dynamic]) -> Said<Answer> {
    if messages.is_empty() {
        return Err("several() needs at least one message; to let none pass, call drop()".into());
    }
    if messages.len() > config.published_max {
        return Err(Stop::Published.error());
    }
    let mut drafts = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let draft = within(&format!("message {index} of several()"), part(run, message))?;
        count_output(&mut run.output_bytes, draft_bytes(&draft), config)?;
        drafts.push(draft);
    }
    Ok(Answer::Several(drafts))
}

/// One message of `several`: a map with topic, payload, and options.
fn part(run: &TransformRun, message: &Dynamic) -> Said<weirmq_core::hook::Draft> {
    let Some(map) = message.read_lock::<Map>() else {
        return Err(format!("a map #{{ topic: ..., payload: ... }} is needed, not {}", kind(message)).into());
    };
    let mut options = map.clone();
    let topic = options.remove("topic").and_then(|topic| topic.into_immutable_string().ok());
    match (topic, options.remove("payload")) {
        (Some(topic), Some(payload)) => {
            check_free_for(run, &topic)?;
            draft(&topic, &payload, &options, Some(&run.message))
        }
        (None, _) => Err("its topic is missing, or no text".into()),
        (_, None) => Err("its payload is missing".into()),
    }
}

fn count_output(so_far: &mut usize, more: usize, config: &Config) -> Said<()> {
    *so_far = so_far.saturating_add(more);
    if *so_far > config.output_bytes_max { Err(Stop::OutputBytes.error()) } else { Ok(()) }
}

fn in_on_rule(context: &NativeCallContext<'_>, act: impl FnOnce(&mut OnRun) -> Said<()>) -> Said<()> {
    with_frame(|frame| match frame {
        Frame::On(on) => act(on),
        _ => Err(misplaced(context.fn_name(), "in the handler of an on() rule")),
    })
    .unwrap_or_else(|| Err(misplaced(context.fn_name(), "in the handler of an on() rule")))
}

fn in_transform(
    context: &NativeCallContext<'_>,
    answer: impl FnOnce(&mut TransformRun) -> Said<Answer>,
) -> Said<()> {
    let word = context.fn_name();
    with_frame(|frame| {
        let Frame::Transform(run) = frame else {
            return Err(misplaced(word, "in the handler of a transform()"));
        };
        if let Some((former, position)) = &run.answer {
            return Err(format!(
                "the transform has answered with {}() before ({position}); it answers once: several() makes \
                 more messages of one, and return ends a handler early",
                former.word()
            )
            .into());
        }
        let answer = answer(run)?;
        run.answer = Some((answer, context.call_position()));
        Ok(())
    })
    .unwrap_or_else(|| Err(misplaced(word, "in the handler of a transform()")))
}

fn misplaced(word: &str, place: &str) -> Box<rhai::EvalAltResult> {
    format!("{word}() can only be called {place}").into()
}

/// The longest line that a rule logs, in bytes.
const LOG_LINE_BYTES_MAX: usize = 4_096;

fn register_logging(engine: &mut Engine, config: &Arc<Config>) {
    let limits = Arc::clone(config);
    engine.register_fn("log", move |value: Dynamic| match value.read_lock::<ImmutableString>() {
        Some(text) => log(&limits, Level::Info, &text),
        None => log(&limits, Level::Info, &shown(&value)),
    });
    let limits = Arc::clone(config);
    engine.on_print(move |text| log(&limits, Level::Info, text));
    let limits = Arc::clone(config);
    engine.on_debug(move |text, _, _: Position| log(&limits, Level::Debug, text));
}

#[derive(Clone, Copy)]
enum Level {
    Info,
    Debug,
}

/// How many lines the top level of a file, or a test, may log.
const UNNAMED_LINES_MAX: u32 = 100;

/// Logs `text` in the name of the rule that is running. What a file says while it is loaded, and a test,
/// is logged without.
fn log(config: &Config, level: Level, text: &str) {
    let speaker = with_frame(|frame| match frame {
        Frame::On(on) => Ok((Arc::clone(&on.rule), on.now)),
        Frame::Transform(run) => Ok((Arc::clone(&run.rule), run.now)),
        Frame::Load { lines, .. } | Frame::Test { lines, .. } => {
            *lines = lines.saturating_add(1);
            Err(*lines)
        }
    });
    let text = cut(text);
    let (rule, now) = match speaker {
        Some(Ok(speaker)) => speaker,
        Some(Err(lines)) if lines > UNNAMED_LINES_MAX => return,
        Some(Err(_)) | None => return emit(level, None, 0, text),
    };
    if let Logged::Yes { suppressed } = rule.may_log(now.unix_ms, config.log_lines_per_second_max) {
        emit(level, Some(&rule), suppressed, text);
    }
}

fn emit(level: Level, rule: Option<&Rule>, suppressed: u64, text: &str) {
    let (name, file) = rule.map_or(("", ""), |rule| (&*rule.name, &*rule.program.file));
    match level {
        Level::Info => tracing::info!(rule = name, file, suppressed, "{text}"),
        Level::Debug => tracing::debug!(rule = name, file, suppressed, "{text}"),
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(LOG_LINE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Functions of the language's own packages that could stall a worker or fill its memory in one call, within
/// bounds.
fn register_bounded(engine: &mut Engine, config: &Arc<Config>) {
    fn sleepless() -> Said<()> {
        Err("a rule does not sleep: it would hold up the messages of everybody".into())
    }
    engine.register_fn("sleep", |_: INT| sleepless()).register_fn("sleep", |_: f64| sleepless());
    engine.register_fn("parse_json", |text: ImmutableString| parse_json(&text));
    let limits = Arc::clone(config);
    engine.register_fn(
        "replace",
        move |text: &mut ImmutableString, find: ImmutableString, by: ImmutableString| {
            replace_text(&limits, text, &find, &by)
        },
    );
    let limits = Arc::clone(config);
    engine.register_fn("replace", move |text: &mut ImmutableString, find: char, by: ImmutableString| {
        replace_text(&limits, text, find.encode_utf8(&mut [0; 4]), &by)
    });
    let limits = Arc::clone(config);
    engine.register_fn("replace", move |text: &mut ImmutableString, find: ImmutableString, by: char| {
        replace_text(&limits, text, &find, by.encode_utf8(&mut [0; 4]))
    });
}

fn replace_text(config: &Config, text: &mut ImmutableString, find: &str, by: &str) -> Said<()> {
    charge(text.len())?;
    let found = text.matches(find).count();
    let grown = found.saturating_mul(by.len()).saturating_add(text.len());
    if grown.saturating_sub(found.saturating_mul(find.len())) > config.string_bytes_max {
        let what = "Length of string".to_owned();
        return Err(rhai::EvalAltResult::ErrorDataTooLarge(what, Position::NONE).into());
    }
    *text = text.replace(find, by).into();
    Ok(())
}

fn register_tests(engine: &mut Engine) {
    engine
        .register_fn("deliver", |context: NativeCallContext<'_>, topic: ImmutableString, payload: Dynamic| {
            deliver(context.fn_name(), &topic, &payload, &Map::new())
        })
        .register_fn(
            "deliver",
            |context: NativeCallContext<'_>, topic: ImmutableString, payload: Dynamic, options: Map| {
                deliver(context.fn_name(), &topic, &payload, &options)
            },
        )
        .register_fn("assert", |condition: bool| -> Said<()> {
            if condition { Ok(()) } else { Err("the assertion does not hold".into()) }
        })
        .register_fn("assert", |condition: bool, text: ImmutableString| -> Said<()> {
            if condition { Ok(()) } else { Err(format!("the assertion does not hold: {text}").into()) }
        })
        .register_fn("assert_eq", |left: Dynamic, right: Dynamic| -> Said<()> {
            if same(&left, &right)? {
                return Ok(());
            }
            let (left, right) = (shown(&left), shown(&right));
            Err(format!("the two are not equal\n left: {left}\nright: {right}").into())
        });
    // A length that a native function gives back is compared with whole numbers.
    const _: () = assert!(size_of::<INT>() == 8, "scripts count in 64 bits");
}
