//! The nearest known name to one that is not known.

/// `known`, the ones most like `asked` first.
pub(crate) fn nearest_first<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<(usize, &str)> =
        known.into_iter().map(|name| (distance(asked, name), name)).collect();
    ranked.sort_by_key(|(distance, _)| *distance);
    ranked.into_iter().map(|(_, name)| name).collect()
}

/// ": did you mean ..." where one of `known` is near enough to `asked`; nothing otherwise.
pub(crate) fn did_you_mean<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let ranked = known.into_iter().map(|name| (distance(asked, name), name));
    match ranked.min_by_key(|(distance, _)| *distance) {
        Some((distance, name)) if distance <= 2.max(asked.chars().count() / 3) => {
            format!(": did you mean '{name}'?")
        }
        _ => String::new(),
    }
}

/// How many characters have to be put in, taken out or changed to make `right` of `left`. The part of
/// `left` that counts is bounded: it comes from a script.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (done, from) in left.chars().take(64).enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left_of_here = done + 1;
        next.push(left_of_here);
        for (to, pair) in right.iter().zip(row.windows(2)) {
            let &[diagonal, above] = pair else { continue };
            let changed = diagonal + usize::from(from != *to);
            left_of_here = changed.min(above + 1).min(left_of_here + 1);
            next.push(left_of_here);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant_comes_first() {
        let known = ["topic", "payload", "text", "json", "client_id"];
        assert_eq!(nearest_first("jsn", known)[0], "json");
        assert_eq!(nearest_first("clientid", known)[0], "client_id");
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("温度", "温"), 1);
    }
}
