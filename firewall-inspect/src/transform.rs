//! SecLang's transformations: what happens to a value before an operator sees it.
//!
//! Bytes in, bytes out. The rules are those of libmodsecurity 3.0, oddities included, since rule sets are written against
//! them: what is malformed stays as it is, never an error.

mod decode;
mod encode;
mod path;
#[cfg(test)]
mod tests;
mod triggers;
mod white;

pub(crate) use self::triggers::Triggers;
use crate::seclang::Transformation;

impl Transformation {
    /// Whether there may be more bytes after it than before.
    pub(crate) fn grows(self) -> bool {
        matches!(
            self,
            Self::Base64Encode
                | Self::HexEncode
                | Self::Length
                | Self::Md5
                | Self::Sha1
                | Self::UrlEncode
                | Self::Utf8ToUnicode
        )
    }

    /// Writes the transformed `input` to `output`, and says whether it differs. If not, `output` holds nothing of use.
    pub fn apply(self, input: &[u8], output: &mut Vec<u8>) -> bool {
        output.clear();
        if input.is_empty() && !matches!(self, Self::Length | Self::Md5 | Self::Sha1) {
            return false;
        }
        match self {
            Self::Base64Decode => decode::base64(input, output),
            Self::Base64DecodeExt => decode::base64_forgiving(input, output),
            Self::Base64Encode => encode::base64(input, output),
            Self::CmdLine => white::cmd_line(input, output),
            Self::CompressWhitespace => white::compress(input, output),
            Self::CssDecode => decode::css(input, output),
            Self::EscapeSeqDecode => decode::escape_sequences(input, output),
            Self::HexDecode => decode::hex(input, output),
            Self::HexEncode => encode::hex(input, output),
            Self::HtmlEntityDecode => decode::html_entities(input, output),
            Self::JsDecode => decode::js(input, output),
            Self::Length => output.extend_from_slice(input.len().to_string().as_bytes()),
            Self::Lowercase => return mapped(input, output, u8::to_ascii_lowercase),
            Self::Md5 => encode::md5(input, output),
            Self::NormalizePath if path::is_one_segment(input, false) => return false,
            Self::NormalizePathWin if path::is_one_segment(input, true) => return false,
            Self::NormalizePath => path::normalize(input, output, false),
            Self::NormalizePathWin => path::normalize(input, output, true),
            Self::RemoveComments => white::remove_comments(input, output),
            Self::RemoveCommentsChar => white::remove_comment_marks(input, output),
            Self::RemoveNulls => return without(input, output, |byte| byte == 0),
            Self::RemoveWhitespace => {
                return without(input, output, |byte| white::is_space(byte) || byte == white::NBSP);
            }
            Self::ReplaceComments => white::replace_comments(input, output),
            Self::ReplaceNulls => return mapped(input, output, |byte| if *byte == 0 { b' ' } else { *byte }),
            Self::Sha1 => encode::sha1(input, output),
            Self::SqlHexDecode => decode::sql_hex(input, output),
            Self::Trim => output.extend_from_slice(white::trim_left(white::trim_right(input))),
            Self::TrimLeft => output.extend_from_slice(white::trim_left(input)),
            Self::TrimRight => output.extend_from_slice(white::trim_right(input)),
            Self::Uppercase => return mapped(input, output, u8::to_ascii_uppercase),
            Self::UrlDecode => decode::url(input, output, false),
            Self::UrlDecodeUni => decode::url(input, output, true),
            Self::UrlEncode => encode::url(input, output),
            Self::Utf8ToUnicode => decode::utf8_to_unicode(input, output),
        }
        output != input
    }
}

/// Byte by byte; nothing is written if nothing changes.
fn mapped(input: &[u8], output: &mut Vec<u8>, map: impl Fn(&u8) -> u8) -> bool {
    let Some(first) = input.iter().position(|byte| map(byte) != *byte) else { return false };
    output.extend_from_slice(&input[..first]);
    output.extend(input[first..].iter().map(map));
    true
}

/// Without some bytes; nothing is written if there are none.
fn without(input: &[u8], output: &mut Vec<u8>, goes: impl Fn(u8) -> bool) -> bool {
    let Some(first) = input.iter().position(|byte| goes(*byte)) else { return false };
    output.extend_from_slice(&input[..first]);
    output.extend(input[first..].iter().filter(|byte| !goes(**byte)));
    true
}
