//! Topic filters as plugins need them: templates that are filled in with what is known of a client, and which
//! filter covers what.

/// A topic filter with placeholders, such as `devices/{client_id}/#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

impl Template {
    /// Finds the placeholders and checks that what comes out is a topic filter. `known` are the names that there
    /// are; one that ends with `:` stands for every name that begins with it.
    ///
    /// # Errors
    /// What is wrong with the template, which is quoted.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((name, after)) = behind.split_once('}') else {
                return Err(format!("'{text}': '{{' without '}}'"));
            };
            let fits = |known: &&&str| match known.strip_suffix(':') {
                Some(_) => name.len() > known.len() && name.starts_with(**known),
                None => name == **known,
            };
            if known.iter().find(fits).is_none() {
                return Err(format!("'{text}': there is no {{{name}}}, only {}", listed(known)));
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Name(name.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        let template = Self { text: text.to_owned(), parts };
        let example = template.fill(|_| Some("x"))?.unwrap_or_default();
        match check_filter(&example) {
            Ok(()) => Ok(template),
            Err(error) => Err(format!("'{text}' is not a topic filter: {error}")),
        }
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter with values in the place of names; `None` where a name has no value.
    ///
    /// # Errors
    /// A value would widen the filter: a level separator, a wildcard, U+0000, nothing at all, or a `$` that would
    /// become the filter's first character.
    pub fn fill<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Result<Option<String>, String> {
        let filled = self.fill_each(|name| value(name).into_iter().collect(), 1)?;
        Ok(filled.into_iter().next())
    }

    /// The filters with every combination of the values that names have; none where a name has none.
    ///
    /// # Errors
    /// As [`Template::fill`]; or there would be more than `filters_max`.
    pub fn fill_each<'a>(
        &self,
        values: impl Fn(&str) -> Vec<&'a str>,
        filters_max: usize,
    ) -> Result<Vec<String>, String> {
        let mut filters = vec![String::with_capacity(self.text.len() + 16)];
        for part in &self.parts {
            let name = match part {
                Part::Text(text) => {
                    filters.iter_mut().for_each(|filter| filter.push_str(text));
                    continue;
                }
                Part::Name(name) => name,
            };
            let values = values(name);
            if filters.len().saturating_mul(values.len()) > filters_max {
                return Err(format!("'{}' would become more than {filters_max} filters", self.text));
            }
            let mut filled = Vec::with_capacity(filters.len() * values.len());
            for filter in &filters {
                for value in &values {
                    if !fits(filter, value) {
                        let text = &self.text;
                        return Err(format!("the {name} {value:?} cannot stand in the filter '{text}'"));
                    }
                    filled.push(format!("{filter}{value}"));
                }
            }
            filters = filled;
        }
        Ok(filters)
    }
}

/// Whether `value` behind `filter` leaves it as wide as it is.
fn fits(filter: &str, value: &str) -> bool {
    let reserved = filter.is_empty() && value.starts_with('$');
    !(value.is_empty() || reserved || value.contains(['/', '+', '#', '\0']))
}

fn listed(known: &[&str]) -> String {
    let named = |name: &&str| match name.strip_suffix(':') {
        Some(_) => format!("{{{name}NAME}}"),
        None => format!("{{{name}}}"),
    };
    let names: Vec<String> = known.iter().map(named).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "plain text".to_owned(),
    }
}

/// Whether `filter` is a topic filter by the rules of MQTT.
///
/// # Errors
/// What it breaks.
pub fn check_filter(filter: &str) -> Result<(), &'static str> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err("'#' must be the last level and stand alone in it");
        }
        if level.contains('+') && level != "+" {
            return Err("'+' must stand alone in its level");
        }
    }
    if filter.is_empty() {
        return Err("it is empty");
    }
    if filter.len() > 65_000 || filter.contains('\0') {
        return Err("it is too long or contains U+0000");
    }
    Ok(())
}

/// Whether every topic that `asked` matches is matched by `filter`. A topic stands for itself.
#[must_use]
pub fn covers(filter: &str, asked: &str) -> bool {
    if hidden(filter, asked) {
        return false;
    }
    let mut asked = asked.split('/');
    for level in filter.split('/') {
        match (level, asked.next()) {
            ("#", _) => return true,
            (_, None) | ("+", Some("#")) => return false,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    asked.next().is_none()
}

/// Whether there is a topic that both filters match. A topic stands for itself.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    if hidden(one, other) || hidden(other, one) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            // `a/#` matches `a` too.
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

/// A wildcard at the first level matches no topic that begins with `$`.
fn hidden(filter: &str, asked: &str) -> bool {
    asked.starts_with('$') && filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["username", "client_id", "attribute:"];

    fn filled(template: &str, username: &str, client_id: &str) -> Result<Option<String>, String> {
        Template::parse(template, &KNOWN)?.fill(|name| match name {
            "username" => Some(username),
            "client_id" => Some(client_id),
            _ => None,
        })
    }

    #[test]
    fn placeholders_are_filled_in_wherever_they_stand() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(filled("factory/+/{username}/#", "press-1", "c"), some("factory/+/press-1/#"));
        assert_eq!(filled("{client_id}/dev-{username}", "u", "c"), some("c/dev-u"));
        assert_eq!(filled("#", "u", "c"), some("#"));
        assert_eq!(filled("a/{attribute:site}/b", "u", "c"), Ok(None));
    }

    #[test]
    fn nothing_that_a_client_chooses_widens_a_right() {
        for value in ["+", "#", "a/b", "a+", "", "a\0", "a/#"] {
            assert!(filled("factory/{username}/x", value, "c").is_err(), "{value:?} as user name");
            assert!(filled("factory/{client_id}/x", "u", value).is_err(), "{value:?} as client identifier");
        }
        assert!(filled("{username}/#", "$SYS", "c").is_err());
        assert_eq!(filled("a/{username}/#", "$SYS", "c").unwrap().unwrap(), "a/$SYS/#");
        let unused = filled("a/{username}", "u", "any/+/#").unwrap().unwrap();
        assert_eq!(unused, "a/u", "what a template does not use does not count");
    }

    #[test]
    fn several_values_make_a_filter_each_and_never_too_many() {
        let template = Template::parse("{username}/{client_id}", &KNOWN).unwrap();
        let values = |name: &str| if name == "username" { vec!["a", "b"] } else { vec!["1", "2"] };
        assert_eq!(template.fill_each(values, 4).unwrap(), ["a/1", "a/2", "b/1", "b/2"]);
        assert!(template.fill_each(values, 3).unwrap_err().contains("more than 3 filters"));
        assert!(template.fill_each(|_| Vec::new(), 4).unwrap().is_empty());
    }

    #[test]
    fn a_bad_template_is_refused_with_what_is_wrong() {
        for (template, part) in [
            ("a/{user}", "there is no {user}, only {username}, {client_id} and {attribute:NAME}"),
            ("a/{attribute:}", "{attribute:}"),
            ("a/{username", "without"),
            ("a/#/b", "'#'"),
            ("a+/b", "'+'"),
            ("+{username}", "'+'"),
            ("", "empty"),
        ] {
            let error = Template::parse(template, &KNOWN).unwrap_err();
            assert!(error.contains(part), "{template}: {error}");
        }
    }

    #[test]
    fn a_filter_covers_what_it_matches_as_a_whole() {
        for (filter, asked, covered, overlapping) in [
            ("a/b", "a/b", true, true),
            ("a/#", "a", true, true),
            ("a/#", "a/b/#", true, true),
            ("a/+", "a/+", true, true),
            ("a/+", "a/#", false, true),
            ("a/+", "a", false, false),
            ("a/b", "+/b", false, true),
            ("a/b", "#", false, true),
            ("a/b/c", "a/+", false, false),
            ("#", "$SYS/x", false, false),
            ("+/x", "$SYS/x", false, false),
            ("$SYS/#", "$SYS/x", true, true),
            ("$SYS/#", "#", false, false),
        ] {
            assert_eq!(covers(filter, asked), covered, "{filter} covers {asked}");
            assert_eq!(overlap(filter, asked), overlapping, "{filter} and {asked}");
            assert_eq!(overlap(asked, filter), overlapping, "{asked} and {filter}");
        }
    }
}
