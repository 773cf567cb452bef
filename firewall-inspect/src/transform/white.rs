//! What is white space, or as good as.

/// The no-break space of ISO 8859-1.
pub(super) const NBSP: u8 = 0xa0;

/// As C's `isspace` has it.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

pub(super) fn trim_left(input: &[u8]) -> &[u8] {
    &input[input.iter().take_while(|byte| is_space(**byte)).count()..]
}

pub(super) fn trim_right(input: &[u8]) -> &[u8] {
    &input[..input.len() - input.iter().rev().take_while(|byte| is_space(**byte)).count()]
}

/// White space of any length is one space.
pub(super) fn compress(input: &[u8], output: &mut Vec<u8>) {
    let mut before = false;
    for byte in input {
        let space = is_space(*byte);
        if !space {
            output.push(*byte);
        } else if !before {
            output.push(b' ');
        }
        before = space;
    }
}

/// As a shell's user might have typed it: without quotes, backslashes and carets; white space, commas and semicolons are one
/// space, none before a slash or a parenthesis; in lower case.
pub(super) fn cmd_line(input: &[u8], output: &mut Vec<u8>) {
    let mut space = false;
    for byte in input {
        match byte {
            b'"' | b'\'' | b'\\' | b'^' => {}
            b' ' | b',' | b';' | b'\t' | b'\r' | b'\n' => {
                if !space {
                    output.push(b' ');
                }
                space = true;
            }
            b'/' | b'(' => {
                if space {
                    output.pop();
                }
                space = false;
                output.push(*byte);
            }
            _ => {
                output.push(byte.to_ascii_lowercase());
                space = false;
            }
        }
    }
}

/// Where `mark` stands in `input`, from `from` on.
fn find(input: &[u8], from: usize, mark: &[u8]) -> Option<usize> {
    memchr::memmem::find(&input[from..], mark).map(|at| from + at)
}

/// A comment of C is one space, also one that does not end.
pub(super) fn replace_comments(input: &[u8], output: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(start) = find(input, at, b"/*") {
        output.extend_from_slice(&input[at..start]);
        output.push(b' ');
        at = find(input, start + 2, b"*/").map_or(input.len(), |end| end + 2);
    }
    output.extend_from_slice(&input[at..]);
}

/// Without comments of C and HTML, and nothing from `--` or `#` on. A comment that does not end is one space.
pub(super) fn remove_comments(input: &[u8], output: &mut Vec<u8>) {
    let mut at = 0;
    while at < input.len() {
        let rest = &input[at..];
        let comment =
            [(&b"/*"[..], &b"*/"[..]), (b"<!--", b"-->")].into_iter().find(|(begin, _)| rest.starts_with(begin));
        if let Some((begin, end)) = comment {
            let Some(found) = find(input, at + begin.len(), end) else { return output.push(b' ') };
            at = found + end.len();
        } else if rest.starts_with(b"--") || rest[0] == b'#' {
            return;
        } else {
            output.push(rest[0]);
            at += 1;
        }
    }
}

/// Without the marks that begin and end comments.
pub(super) fn remove_comment_marks(input: &[u8], output: &mut Vec<u8>) {
    const MARKS: [&[u8]; 6] = [b"<!--", b"-->", b"/*", b"*/", b"--", b"#"];
    let mut rest = input;
    while let [first, behind @ ..] = rest {
        rest = match MARKS.iter().find_map(|mark| rest.strip_prefix(*mark)) {
            Some(behind) => behind,
            None => {
                output.push(*first);
                behind
            }
        };
    }
}
