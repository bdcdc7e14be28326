//! Splits a gst-launch line into tokens, nodes and chains. It knows only as much of the grammar as is needed to find
//! the ends of the line; GStreamer's own parser checks the rest.

use std::fmt;

/// For each byte of `text` that opens a quote or a bracket, the index of the byte that closes it; 0 for all other
/// bytes. A quote or bracket that is never closed is an ordinary character. Brackets inside quotes are ignored.
pub(super) fn closing_indices(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut closed_by = vec![0; bytes.len()];
    let mut open: Vec<(usize, u8)> = Vec::new();
    // How many of each closing bracket are expected. An unmatched one then needs no search, so the time stays linear.
    let mut expected = [0usize; 256];
    let mut no_more_quotes = [false; 256];
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' | b'\'' if !no_more_quotes[usize::from(byte)] => match closing_quote(bytes, at) {
                Some(end) => {
                    closed_by[at] = end;
                    at = end;
                }
                None => no_more_quotes[usize::from(byte)] = true,
            },
            b'(' => push(&mut open, &mut expected, at, b')'),
            b'[' => push(&mut open, &mut expected, at, b']'),
            b'{' => push(&mut open, &mut expected, at, b'}'),
            b'<' => push(&mut open, &mut expected, at, b'>'),
            b')' | b']' | b'}' | b'>' if expected[usize::from(byte)] > 0 => {
                while let Some((start, closer)) = open.pop() {
                    expected[usize::from(closer)] -= 1;
                    if closer == byte {
                        closed_by[start] = at;
                        break;
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    closed_by
}

fn push(open: &mut Vec<(usize, u8)>, expected: &mut [usize; 256], at: usize, closer: u8) {
    open.push((at, closer));
    expected[usize::from(closer)] += 1;
}

fn closing_quote(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            _ if byte == bytes[start] => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether there is white space outside quotes and brackets.
pub(super) fn has_unquoted_space(text: &str) -> bool {
    unquoted_spaces(text).next().is_some()
}

/// Splits at white space that is outside quotes and brackets and not escaped.
pub(super) fn split_tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut start = 0;
    for space in unquoted_spaces(text) {
        tokens.push(&text[start..space]);
        start = space + 1;
    }
    tokens.push(&text[start..]);
    tokens.retain(|token| !token.is_empty());
    tokens
}

/// Indices of ASCII white space outside quotes and brackets.
fn unquoted_spaces(text: &str) -> impl Iterator<Item = usize> {
    let closed_by = closing_indices(text);
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(&byte) = bytes.get(at) {
            let here = at;
            at = match byte {
                b'\\' => at + 2,
                _ => closed_by[at].max(at) + 1,
            };
            if byte.is_ascii_whitespace() {
                return Some(here);
            }
        }
        None
    })
}

/// A property value in launch-line syntax, quoted where necessary.
pub(super) fn quote(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_-.,:@".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The tokens between two links (`!`): an element with its properties, caps, or a reference to a pad.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Node<'a> {
    pub tokens: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// `jpegenc quality=90`
    Element,
    /// `video/x-raw,width=640`
    Caps,
    /// `t.` or `mux.sink_0`
    Reference,
    /// Anything else: a bin in parentheses, an unknown token, or nothing.
    Other,
}

impl<'a> Node<'a> {
    /// The element's name, the caps, or the reference, without quotes.
    pub fn name(&self) -> &'a str {
        self.tokens.first().map_or("", |token| token.trim_matches(['"', '\'']))
    }

    pub fn kind(&self) -> NodeKind {
        let name = self.name();
        let before_value = name.split(['=', '(', ',', ' ']).next().unwrap_or_default();
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            NodeKind::Other
        } else if before_value.contains('/') {
            NodeKind::Caps
        } else if before_value.contains('.') {
            NodeKind::Reference
        } else if name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        {
            NodeKind::Element
        } else {
            NodeKind::Other
        }
    }

    /// Whether the node is the element `name`.
    pub fn is_element(&self, name: &str) -> bool {
        self.kind() == NodeKind::Element && self.name() == name
    }

    /// Whether the node is one of these elements.
    pub fn is_one_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.is_element(name))
    }

    /// Whether the node is caps of `media_type`, for example `image/jpeg`.
    pub fn is_caps_of(&self, media_type: &str) -> bool {
        let rest = self.name().strip_prefix(media_type);
        self.kind() == NodeKind::Caps
            && rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
    }

    fn continues_with(&self, token: &str) -> bool {
        let last = self.tokens.last().copied().unwrap_or_default();
        last.ends_with(['=', ',']) || token.starts_with(['=', ',']) || is_assignment(token)
    }
}

impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tokens.join(" "))
    }
}

/// Whether the token is `name=value`. Caps such as `video/x-raw,width=640` are not.
pub(super) fn is_assignment(token: &str) -> bool {
    token
        .split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && !name.contains(['/', '"', '\'']))
}

/// Linked nodes: one branch of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain<'a> {
    /// At least one; the last one is empty when the line ends in `!`.
    pub nodes: Vec<Node<'a>>,
}

impl Default for Chain<'_> {
    /// A chain with one empty node.
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> = self.nodes.iter().map(ToString::to_string).collect();
        f.write_str(&nodes.join(" ! "))
    }
}

/// The branches of a line, in order. Their texts have the same tokens as the line.
pub(super) fn parse_chains(line: &str) -> Vec<Chain<'_>> {
    let mut chains: Vec<Chain<'_>> = Vec::new();
    let mut chain = Chain::default();
    for token in split_tokens(line) {
        if token == "!" {
            chain.nodes.push(Node::default());
            continue;
        }
        let is_linked = |last: &Node<'_>| last.tokens.is_empty() || last.continues_with(token);
        if !chain.nodes.last().is_some_and(is_linked) {
            chains.push(std::mem::take(&mut chain));
        }
        if let Some(last) = chain.nodes.last_mut() {
            last.tokens.push(token);
        }
    }
    if chain != Chain::default() {
        chains.push(chain);
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(line: &str) -> Vec<Vec<String>> {
        let tokens = |node: &Node<'_>| node.tokens.join(" ");
        parse_chains(line)
            .iter()
            .map(|chain| chain.nodes.iter().map(tokens).collect())
            .collect()
    }

    #[test]
    fn white_space_in_quotes_and_brackets_does_not_split() {
        assert_eq!(
            split_tokens(r#"a location="x y" "caps, b=1" {c,  d} e\ f it's"#),
            ["a", r#"location="x y""#, r#""caps, b=1""#, "{c,  d}", r"e\ f", "it's"]
        );
    }

    #[test]
    fn branches_are_separate_chains_and_spaced_caps_are_one_node() {
        assert_eq!(
            shapes(
                "v4l2src ! video/x-raw, width=640, height = 480 ! tee name=t t. ! queue ! kvssink stream-name=s t. ! jpegenc"
            ),
            [
                vec!["v4l2src", "video/x-raw, width=640, height = 480", "tee name=t"],
                vec!["t.", "queue", "kvssink stream-name=s"],
                vec!["t.", "jpegenc"],
            ]
        );
    }

    #[test]
    fn the_kind_of_a_node_is_known() {
        let kind = |text: &'static str| {
            Node {
                tokens: split_tokens(text),
            }
            .kind()
        };
        assert_eq!(kind("jpegenc quality=90"), NodeKind::Element);
        assert_eq!(kind("video/x-raw(memory:NVMM),width=1"), NodeKind::Caps);
        assert_eq!(kind(r#""image/jpeg, width=640""#), NodeKind::Caps);
        assert_eq!(kind("t."), NodeKind::Reference);
        assert_eq!(kind("mux.sink_0"), NodeKind::Reference);
        assert_eq!(kind("( videotestsrc )"), NodeKind::Other);
    }

    #[test]
    fn many_unclosed_brackets_are_read_in_linear_time() {
        let text = "([{<\"'".repeat(10_000) + &")".repeat(60_000);
        assert_eq!(closing_indices(&text).len(), text.len());
    }
}
