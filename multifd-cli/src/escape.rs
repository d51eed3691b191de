//! Text of peers and files, made harmless for a terminal.

/// The text in one line, with the characters escaped that could change how a terminal shows it.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || reorders(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// JSON with the same characters escaped, as JSON does it. They can only be in its strings.
pub(crate) fn json(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    for c in text.chars() {
        let is_layout = c == '\n';
        if !is_layout && (c.is_control() || reorders(c)) {
            json += &format!("\\u{:04x}", u32::from(c));
        } else {
            json.push(c);
        }
    }
    json
}

/// Whether the character is invisible and changes the order of the text around it, or ends a line.
fn reorders(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The characters that the program must not print.
    fn hostile() -> impl Iterator<Item = char> {
        let ranges = ['\0'..='\u{1f}', '\u{7f}'..='\u{9f}', '\u{2028}'..='\u{202e}'];
        ranges.into_iter().chain(['\u{2066}'..='\u{2069}']).flatten().chain(['\u{200f}'])
    }

    #[test]
    fn a_character_that_changes_how_a_line_is_shown_is_escaped() {
        for c in hostile() {
            let escaped = one_line(&format!("pc{c}ram"));
            assert_eq!(escaped, format!("pc{}ram", c.escape_default()));
        }
        assert_eq!(one_line("/rom@etc/überall ☺"), "/rom@etc/überall ☺");
    }

    #[test]
    fn json_says_the_same_text_with_the_character_escaped() {
        for c in hostile() {
            let name = format!("pc{c}ram");
            let escaped = json(&serde_json::to_string_pretty(&[&name]).unwrap());
            assert_eq!(escaped.matches(c).count(), if c == '\n' { 2 } else { 0 }, "{c:?}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&escaped).unwrap(), [name]);
        }
    }
}
