//! Compares printed text with shown text in which parts may vary.

/// Says where `printed` is not what is `shown`; `None` where it is.
pub fn difference(shown: &str, printed: &str, numbers_vary: bool) -> Option<String> {
    let shown_lines: Vec<&str> = shown.trim().lines().map(str::trim_end).collect();
    let printed_lines: Vec<&str> = printed.trim().lines().map(str::trim_end).collect();
    let same = |shown: &str, printed: &str| {
        if numbers_vary {
            line_fits(&without_numbers(shown), &without_numbers(printed))
        } else {
            line_fits(shown, printed)
        }
    };
    if lines_fit(&shown_lines, &printed_lines, &same) {
        return None;
    }
    Some(format!("shown:\n{}\nprinted:\n{}", shown_lines.join("\n"), printed_lines.join("\n")))
}

/// A line `...` stands for any number of lines.
fn lines_fit(shown: &[&str], printed: &[&str], same: &dyn Fn(&str, &str) -> bool) -> bool {
    match (shown.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((&"...", rest)), _) => (0..=printed.len()).any(|skipped| lines_fit(rest, &printed[skipped..], same)),
        (Some((first, rest)), Some((line, others))) => same(first, line) && lines_fit(rest, others, same),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// `…` stands for any text.
fn line_fits(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The text with one `0` in the place of each number, with its decimals. Columns are as wide as their numbers, so a run of spaces
/// counts as one.
fn without_numbers(text: &str) -> String {
    let mut result = String::new();
    let mut characters = text.chars().peekable();
    let mut in_number = false;
    while let Some(character) = characters.next() {
        let decimal_point = character == '.' && in_number && characters.peek().is_some_and(char::is_ascii_digit);
        let part_of_number = character.is_ascii_digit() || decimal_point;
        if character == ' ' && result.ends_with(' ') {
            continue;
        }
        if !part_of_number {
            result.push(character);
        } else if !in_number {
            result.push('0');
        }
        in_number = part_of_number;
    }
    result
}

#[test]
fn parts_that_vary() {
    let fits = |shown: &str, printed: &str| difference(shown, printed, false).is_none();
    assert!(fits("a\nb\n", "a\nb"));
    assert!(!fits("a\nb\n", "a\nc\n"));
    assert!(!fits("a\n", "a\nb\n"));
    assert!(!fits("a\nb\n", "a\n"));
    assert!(fits("...\nb\n...\nd", "x\ny\nb\nd"));
    assert!(!fits("...\nb", "x\ny\n"));
    assert!(fits("took=… of …s", "took=1 of 2s"));
    assert!(!fits("took=…s", "took=1m"));
    assert!(!fits("a=1", "a=2"));
    assert!(difference("a=1 b=2.50", "a=17 b=3", true).is_none());
    assert!(difference("a   1", "a  20", true).is_none());
    assert!(difference("a=1.", "a=b.", true).is_some());
}
