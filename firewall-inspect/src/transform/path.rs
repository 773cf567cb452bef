//! Paths in normal form.

/// Whether it is in normal form for want of a slash.
pub(super) fn is_one_segment(input: &[u8], windows: bool) -> bool {
    let slash = |byte: &u8| *byte == b'/' || (windows && *byte == b'\\');
    input.first() != Some(&b'.') && !input.iter().any(slash)
}

/// Without empty and dot segments; `..` takes the segment before it away, where there is one. With `windows`, backslashes are
/// slashes.
pub(super) fn normalize(input: &[u8], output: &mut Vec<u8>, windows: bool) {
    let slash = |byte: &u8| *byte == b'/' || (windows && *byte == b'\\');
    let absolute = input.first().is_some_and(slash);
    let trailing = input.last().is_some_and(slash);
    let mut segments: Vec<&[u8]> = Vec::new();
    // The last segment names a folder if it is `.` or `..`.
    let mut folder = trailing;
    for segment in input.split(slash) {
        folder = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => match segments.last() {
                Some(last) if *last != b".." => {
                    segments.pop();
                }
                _ if absolute => {}
                _ => segments.push(segment),
            },
            _ => segments.push(segment),
        }
    }
    if absolute {
        output.push(b'/');
    }
    for (at, segment) in segments.iter().enumerate() {
        if at > 0 {
            output.push(b'/');
        }
        output.extend_from_slice(segment);
    }
    if folder && !segments.is_empty() && segments.last().is_some_and(|last| *last != b"..") {
        output.push(b'/');
    }
}
