//! The words of a gst-launch line: quotes and brackets, links and branches. Only as much grammar as is needed to see
//! where a line ends; GStreamer's own parser judges the rest.

/// For each byte of `text` that opens a quote or a bracket which is closed later, the index of the closing byte; 0 for all
/// other bytes. A quote or bracket that is never closed is an ordinary character. What is inside quotes is not looked at.
pub(super) fn enclosures(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut closed_by = vec![0; bytes.len()];
    let mut open: Vec<(usize, u8)> = Vec::new();
    // How many of each closing bracket are awaited, so that a stray one costs nothing.
    let mut awaited = [0usize; 256];
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
            b'(' => push(&mut open, &mut awaited, at, b')'),
            b'[' => push(&mut open, &mut awaited, at, b']'),
            b'{' => push(&mut open, &mut awaited, at, b'}'),
            b'<' => push(&mut open, &mut awaited, at, b'>'),
            b')' | b']' | b'}' | b'>' if awaited[usize::from(byte)] > 0 => {
                while let Some((start, closer)) = open.pop() {
                    awaited[usize::from(closer)] -= 1;
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

fn push(open: &mut Vec<(usize, u8)>, awaited: &mut [usize; 256], at: usize, closer: u8) {
    open.push((at, closer));
    awaited[usize::from(closer)] += 1;
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
pub(super) fn has_outer_space(text: &str) -> bool {
    outer_spaces(text).next().is_some()
}

/// Splits at white space that is outside quotes and brackets and not escaped.
pub(super) fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    for space in outer_spaces(text) {
        words.push(&text[start..space]);
        start = space + 1;
    }
    words.push(&text[start..]);
    words.retain(|word| !word.is_empty());
    words
}

/// Indices of ASCII white space outside quotes and brackets.
fn outer_spaces(text: &str) -> impl Iterator<Item = usize> {
    let closed_by = enclosures(text);
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

/// One element, caps or reference with its properties: the words between two links.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Segment<'a> {
    pub words: Vec<&'a str>,
}

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `jpegenc quality=90`
    Element,
    /// `video/x-raw,width=640`
    Caps,
    /// `t.` or `mux.sink_0`
    Reference,
    /// Anything else: a bin in parentheses, a stray word.
    Other,
}

impl<'a> Segment<'a> {
    /// The element's name, the caps, or the reference.
    pub fn head(&self) -> &'a str {
        self.words.first().map_or("", |word| word.trim_matches(['"', '\'']))
    }

    pub fn kind(&self) -> Kind {
        let head = self.head();
        let before_value = head.split(['=', '(', ',', ' ']).next().unwrap_or_default();
        if !head.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            Kind::Other
        } else if before_value.contains('/') {
            Kind::Caps
        } else if before_value.contains('.') {
            Kind::Reference
        } else if head
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        {
            Kind::Element
        } else {
            Kind::Other
        }
    }

    /// Whether the segment is the element `name`.
    pub fn is_element(&self, name: &str) -> bool {
        self.kind() == Kind::Element && self.head() == name
    }

    /// Whether these are caps of `media`, as `image/jpeg`.
    pub fn is_caps_of(&self, media: &str) -> bool {
        let rest = self.head().strip_prefix(media);
        self.kind() == Kind::Caps
            && rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
    }

    fn continues_with(&self, word: &str) -> bool {
        let last = self.words.last().copied().unwrap_or_default();
        last.ends_with(['=', ',']) || word.starts_with(['=', ',']) || assignment(word)
    }
}

/// `name=value`; caps such as `video/x-raw,width=640` are not one.
fn assignment(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && !name.contains(['/', '"', '\'']))
}

/// A row of linked segments: one branch of the line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chain<'a> {
    pub segments: Vec<Segment<'a>>,
}

/// The branches of a line, in order. Written out again by [`join`], the words are the same.
pub(super) fn chains(line: &str) -> Vec<Chain<'_>> {
    let mut chains: Vec<Chain<'_>> = Vec::new();
    let mut chain = Chain {
        segments: vec![Segment::default()],
    };
    for word in split(line) {
        if word == "!" {
            chain.segments.push(Segment::default());
            continue;
        }
        let fresh = chain
            .segments
            .last()
            .is_some_and(|last| last.words.is_empty() || last.continues_with(word));
        if !fresh {
            chains.push(std::mem::replace(
                &mut chain,
                Chain {
                    segments: vec![Segment::default()],
                },
            ));
        }
        if let Some(last) = chain.segments.last_mut() {
            last.words.push(word);
        }
    }
    if chain
        != (Chain {
            segments: vec![Segment::default()],
        })
    {
        chains.push(chain);
    }
    chains
}

/// The text of a chain.
pub(super) fn join(chain: &Chain<'_>) -> String {
    chain
        .segments
        .iter()
        .map(|segment| segment.words.join(" "))
        .collect::<Vec<_>>()
        .join(" ! ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(line: &str) -> Vec<Vec<String>> {
        let words = |segment: &Segment<'_>| segment.words.join(" ");
        chains(line)
            .iter()
            .map(|chain| chain.segments.iter().map(words).collect())
            .collect()
    }

    #[test]
    fn spaces_in_quotes_and_brackets_do_not_split() {
        assert_eq!(
            split(r#"a location="x y" "caps, b=1" {c,  d} e\ f it's"#),
            ["a", r#"location="x y""#, r#""caps, b=1""#, "{c,  d}", r"e\ f", "it's"]
        );
    }

    #[test]
    fn branches_are_separate_chains_and_spaced_caps_are_one_segment() {
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
    fn segments_know_what_they_are() {
        let kind = |text: &'static str| Segment { words: split(text) }.kind();
        assert_eq!(kind("jpegenc quality=90"), Kind::Element);
        assert_eq!(kind("video/x-raw(memory:NVMM),width=1"), Kind::Caps);
        assert_eq!(kind(r#""image/jpeg, width=640""#), Kind::Caps);
        assert_eq!(kind("t."), Kind::Reference);
        assert_eq!(kind("mux.sink_0"), Kind::Reference);
        assert_eq!(kind("( videotestsrc )"), Kind::Other);
    }

    #[test]
    fn many_unclosed_brackets_are_read_in_linear_time() {
        let text = "([{<\"'".repeat(10_000) + &")".repeat(60_000);
        assert_eq!(enclosures(&text).len(), text.len());
    }
}
