//! User info and queries of URIs, in text of any kind.

use std::ops::Range;

use super::assignments::value_length;

/// The secret part of the user info of each URI: what follows the user name, or all of it where there is no name. It ends at the
/// last `@` of the word, because a password may hold anything.
pub(super) fn user_infos(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let words: Vec<_> = words(text).collect();
    for (index, word) in words.iter().enumerate() {
        found.extend(encoded_user_info(text, word.clone()));
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
            found.push(match at {
                Some(at) => without_user_name(text, start..at),
                None => cut_password(text, start..piece.end),
            });
            found.push(stream_key(text, start, piece.end));
        }
    }
    found.retain(|range| !range.is_empty());
    found.sort_by_key(|range| range.start);
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

/// The user infos behind which a host, a port and a path stand, so that they certainly end there.
pub(super) fn certain_user_infos(text: &str) -> Vec<Range<usize>> {
    let mut found = user_infos(text);
    found.retain(|info| begins_host_with_port(&text[info.end..]));
    found
}

/// Whether `@host:port/` is at the start, so that what stands before it is user info also where it could be a host.
fn begins_host_with_port(text: &str) -> bool {
    let Some(host) = text.strip_prefix('@') else {
        return false;
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let port = host.trim_start_matches(is_host);
    let has_dot = host[..host.len() - port.len()].contains('.');
    let path = port
        .strip_prefix(':')
        .map(|port| port.trim_start_matches(|c: char| c.is_ascii_digit()));
    has_dot && path.is_some_and(|path| path.starts_with('/'))
}

/// What stands in place of a port and is none: the URI was cut within its password, before the `@`. May be empty.
fn cut_password(text: &str, uri: Range<usize>) -> Range<usize> {
    let authority = &text[uri.clone()];
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '+');
    let host = authority.find(|c| !is_host(c)).unwrap_or(authority.len());
    let Some(rest) = authority[host..].strip_prefix(':') else {
        return uri.start..uri.start;
    };
    let start = uri.start + host + 1;
    let is_port = rest.starts_with(|c: char| c.is_ascii_digit())
        && rest
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .chars()
            .next()
            .is_none_or(|c| !c.is_ascii_alphanumeric());
    let is_placeholder = rest.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("port"))
        && !rest[4..].starts_with(|c: char| c.is_ascii_alphanumeric());
    if host == 0 || is_port || is_placeholder || rest.starts_with(['!', '/', '{', '*']) || begins_property(rest) {
        return start..start;
    }
    start..start + value_length(rest)
}

/// The stream key of an RTMP server: the path behind the name of the application. May be empty.
fn stream_key(text: &str, authority: usize, end: usize) -> Range<usize> {
    let scheme = text[..authority - 3]
        .rsplit(|c: char| !c.is_ascii_alphanumeric())
        .next();
    let none = authority..authority;
    if !scheme.is_some_and(|scheme| scheme.to_ascii_lowercase().starts_with("rtmp")) {
        return none;
    }
    let uri = &text[authority..end];
    let mut slashes = uri.match_indices('/').map(|(at, _)| at);
    let Some(key) = slashes.nth(1) else {
        return none;
    };
    let start = authority + key + 1;
    let length = value_length(&text[start..end]);
    start
        ..start
            + text[start..start + length]
                .trim_end_matches(['"', '\'', ')', '`', ',', ';'])
                .len()
}

/// User and password of a URI whose signs are percent-encoded: `rtsp%3A%2F%2Fuser%3Apassword%40host`.
fn encoded_user_info(text: &str, word: Range<usize>) -> Option<Range<usize>> {
    const SCHEME_END: &str = "%3a%2f%2f";
    let content = &text[word.clone()];
    if !content.contains('%') {
        return None;
    }
    let content = content.to_ascii_lowercase();
    let start = content.find(SCHEME_END)? + SCHEME_END.len();
    let end = content.rfind("%40").filter(|end| *end > start)?;
    Some(word.start + start..word.start + end)
}

/// `user:password@host` where the scheme is missing or incomplete.
fn user_info_without_scheme(text: &str, piece: Range<usize>) -> Option<Range<usize>> {
    let content = &text[piece.clone()];
    let at = content.rfind('@')?;
    let host = &content[at + 1..];
    let host = &host[..host
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-')))
        .unwrap_or(host.len())];
    let property = content[..at].find('=').map_or(0, |equals| equals + 1);
    let before = &content[property..at];
    // A scheme without its colon: `rtsp//user:password@host`.
    let is_scheme = |scheme: &str| scheme.chars().all(|c| c.is_ascii_alphanumeric());
    let before = match before.split_once("//") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        _ => before,
    };
    let start = before.trim_start_matches(['"', '\'', '/', '\\']);
    let info = piece.start + at - start.len()..piece.start + at;
    // `i2c@1` in the name of a camera is no host.
    let is_host = host.contains('.') || host == "localhost" || content[at + 1..].starts_with('[');
    let is_short_host = host.starts_with(|c: char| c.is_ascii_alphabetic())
        && !start.starts_with("arn:")
        && !start.contains(['/', '=', '{']);
    (start.contains(':') && (is_host || is_short_host)).then(|| without_user_name(text, info))
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
            let is_in_user_info = user_infos.peek().is_some_and(|info| {
                info.start < start
                    && (!is_host(text, info.start..start - 1) || begins_host_with_port(&text[info.end..]))
            });
            if start <= done || is_in_user_info {
                continue;
            }
            let rest = &text[start..word.end];
            let has_scheme = uri.is_some_and(|uri| uri < start);
            if has_scheme || begins_property(rest) {
                // A query that begins with a quote is no quoted text.
                let length = if rest.starts_with(['"', '\'']) {
                    rest.len()
                } else {
                    value_length(rest).min(rest.len())
                };
                done = start + length;
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
