//! User info and queries of URIs, in text of any kind.

use std::ops::Range;

use super::assignments::value_length;

/// The secret part of the user info of each URI: what follows the user name, or all of it where there is no name. It ends at the
/// last `@` of the word, because a password may hold anything.
pub(super) fn user_infos(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let words: Vec<_> = words(text).collect();
    for (index, word) in words.iter().enumerate() {
        if !text[word.clone()].contains("://") {
            found.extend(pieces(text, word.clone()).filter_map(|piece| user_info_without_scheme(text, piece)));
            continue;
        }
        for piece in pieces(text, word.clone()) {
            let Some(start) = text[piece.clone()].find("://").map(|at| piece.start + at + 3) else {
                found.extend(user_info_without_scheme(text, piece));
                continue;
            };
            let is_last = piece.end == word.end;
            let far = is_last.then(|| at_sign_behind(text, start, &words[index..])).flatten();
            let at = far.or_else(|| text[start..piece.end].rfind('@').map(|at| start + at));
            found.extend(at.map(|at| without_user_name(text, start..at)));
        }
    }
    found
}

/// Words between white space.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    text.split(|c: char| c.is_whitespace()).filter_map(move |word| {
        let start = at;
        at += word.len() + text[at + word.len()..].chars().next().map_or(0, char::len_utf8);
        (!word.is_empty()).then_some(start..start + word.len())
    })
}

/// The parts of a word of `gst_args` that can hold one URI each. A link (`:!:`) separates them, but not within user info, which
/// goes on to the next `@`, unless another URI begins before that.
fn pieces(text: &str, word: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let content = &text[word.clone()];
    let positions = |sign: &str| content.match_indices(sign).map(|(at, _)| at).collect::<Vec<_>>();
    let (uris, at_signs) = (positions("://"), positions("@"));
    let next = |positions: &[usize], from: usize| positions.get(positions.partition_point(|at| *at < from)).copied();
    let mut pieces = Vec::new();
    let mut from = 0;
    for (at, link) in content.match_indices(":!:") {
        if at < from {
            continue;
        }
        let uri = next(&uris, from).filter(|uri| *uri < at);
        let is_in_user_info = uri.is_some_and(|uri| {
            next(&at_signs, uri).is_some_and(|sign| sign > at && next(&uris, at).is_none_or(|uri| uri > sign))
        });
        if !is_in_user_info {
            pieces.push(word.start + from..word.start + at);
            from = at + link.len();
        }
    }
    pieces.push(word.start + from..word.end);
    pieces.into_iter()
}

/// The last `@` of a URI that goes on behind its first word: within quotes, or because the password has white space.
fn at_sign_behind(text: &str, start: usize, words: &[Range<usize>]) -> Option<usize> {
    let (first, further) = words.split_first()?;
    let scheme =
        text[..start - 3].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let quote = scheme.chars().next_back().filter(|c| matches!(c, '"' | '\''));
    let closes = |word: &Range<usize>| quote.is_some_and(|quote| text[word.clone()].contains(quote));
    let rest = start..first.end;
    let is_quoted = quote.is_some() && !closes(&rest);
    if !is_quoted && text[rest].contains('@') {
        return None;
    }
    let mut last = None;
    for word in further {
        let content = &text[word.clone()];
        if content.contains("://") || content == "!" || (!is_quoted && begins_property(content)) {
            break;
        }
        if let Some(at) = content.rfind('@') {
            last = Some(word.start + at);
            if !is_quoted {
                break;
            }
        }
        if closes(word) {
            break;
        }
    }
    last
}

/// Whether `name=` is at the start of a word.
fn begins_property(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-:.".contains(c);
    word.find(|c| !is_part(c))
        .is_some_and(|end| end > 0 && word[end..].starts_with('='))
}

/// Without a leading `user:`, if that can be a name.
fn without_user_name(text: &str, info: Range<usize>) -> Range<usize> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '+');
    match text[info.clone()].split_once(':') {
        Some((user, _)) if user.len() <= 64 && user.chars().all(is_name) => info.start + user.len() + 1..info.end,
        _ => info,
    }
}

/// Whether what stands before a `?` can be a host, with a port and a path, so that an `@` behind it belongs to the query.
/// `secret`: from behind the user name, if there is one.
fn is_host(text: &str, secret: Range<usize>) -> bool {
    let after_name = &text[secret.clone()];
    let has_name = text[..secret.start].ends_with(':');
    let after_port = after_name.trim_start_matches(|c: char| c.is_ascii_digit());
    !has_name || (after_port.len() < after_name.len() && (after_port.is_empty() || after_port.starts_with('/')))
}

/// `user:password@host` where the scheme is missing.
fn user_info_without_scheme(text: &str, piece: Range<usize>) -> Option<Range<usize>> {
    let content = &text[piece.clone()];
    let at = content.rfind('@')?;
    let host = &content[at + 1..];
    let host = &host[..host
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-')))
        .unwrap_or(host.len())];
    // `i2c@1` in the name of a camera is no host.
    if !(host.contains('.') || host == "localhost" || content[at + 1..].starts_with('[')) {
        return None;
    }
    let property = content[..at].find('=').map_or(0, |equals| equals + 1);
    let quoted = content[property..at].len() - content[property..at].trim_start_matches(['"', '\'']).len();
    let info = piece.start + property + quoted..piece.start + at;
    text[info.clone()].contains(':').then(|| without_user_name(text, info))
}

/// The query of each URL, without its `?`: `?token=...`, also without a scheme.
pub(super) fn queries(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut user_infos = user_infos(text).into_iter().peekable();
    for word in words(text) {
        let mut done = word.start;
        let uri = text[word.clone()].find("://").map(|at| word.start + at);
        for (at, _) in text[word.clone()].match_indices('?') {
            let start = word.start + at + 1;
            while user_infos.next_if(|info| info.end < start).is_some() {}
            let is_in_user_info = user_infos
                .peek()
                .is_some_and(|info| info.start < start && !is_host(text, info.start..start - 1));
            if start <= done || is_in_user_info {
                continue;
            }
            let rest = &text[start..word.end];
            let has_scheme = uri.is_some_and(|uri| uri < start);
            if has_scheme || begins_property(rest) {
                done = start + value_length(rest).min(rest.len());
                // The quote or bracket behind the URL.
                let end = text[start..done]
                    .trim_end_matches(['"', '\'', ')', '`', ',', '>', ']', '}'])
                    .len();
                found.push(start..start + end);
            }
        }
    }
    found
}
