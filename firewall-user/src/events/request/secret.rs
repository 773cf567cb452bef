//! What nobody should read in a log: cookies, credentials, and what is called so.

const HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
const WORDS: [&str; 11] =
    ["pass", "pwd", "secret", "token", "apikey", "api-key", "api_key", "session", "credential", "card", "jwt"];

const MASK: &str = "[masked]";

/// Whether a variable's value may be secret.
pub(super) fn is_secret(variable: &[u8]) -> bool {
    let variable = String::from_utf8_lossy(variable).to_ascii_lowercase();
    let (collection, member) = variable.split_once(':').unwrap_or((&variable, ""));
    // Names are told: they are what a rule about names matched.
    let names = collection.ends_with("_names");
    !names
        && (collection == "request_cookies"
            || (collection.ends_with("_headers") && HEADERS.contains(&member))
            || is_called_secret(member))
}

fn is_called_secret(name: &str) -> bool {
    WORDS.iter().any(|word| name.contains(word))
}

/// Masks values in what holds more than one, as a query, a form, JSON or headers do: what follows a name that says so.
pub(super) fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let name = before.trim_end().trim_end_matches(['"', '\'', '\\']);
        let name = name.rsplit(|of: char| !(of.is_alphanumeric() || "_-.[]%".contains(of))).next().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let value = after.trim_start_matches([' ', '"', '\'', '\\']);
        let opening = &after[..after.len() - value.len()];
        let end = if HEADERS.contains(&name.as_str()) {
            value.find(['\r', '\n'])
        } else if !is_called_secret(&name) {
            Some(0)
        } else if opening.ends_with(['"', '\'']) {
            value.find(['"', '\''])
        } else {
            value.find(|of: char| of.is_whitespace() || "&;,\"'<>{}".contains(of))
        };
        let end = end.unwrap_or(value.len());
        masked.push_str(&rest[..rest.len() - value.len()]);
        if end > 0 {
            masked.push_str(MASK);
        }
        rest = &value[end..];
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_where_they_are() {
        for (variable, secret) in [
            ("REQUEST_COOKIES:sid", true),
            ("REQUEST_COOKIES_NAMES:sid", false),
            ("REQUEST_HEADERS:Authorization", true),
            ("REQUEST_HEADERS:X-Api-Key", true),
            ("REQUEST_HEADERS:User-Agent", false),
            ("ARGS:newPassword", true),
            ("ARGS:json.user.access_token", true),
            ("ARGS:q", false),
            ("REQUEST_URI", false),
            ("TX:0", false),
        ] {
            assert_eq!(is_secret(variable.as_bytes()), secret, "{variable}");
        }
    }

    #[test]
    fn secrets_among_others_are_masked() {
        for (text, expected) in [
            ("", ""),
            ("a=1&b=:", "a=1&b=:"),
            ("/login?user=joe&password=x'y&next=/", "/login?user=joe&password=[masked]'y&next=/"),
            ("/a?access_token=abc.def HTTP/1.1", "/a?access_token=[masked] HTTP/1.1"),
            ("/a?user%5Bpassword%5D=abc", "/a?user%5Bpassword%5D=[masked]"),
            ("user[PassWord]=abc;q=2", "user[PassWord]=[masked];q=2"),
            (r#"{"user":"joe","token": "a b,c","n":1}"#, r#"{"user":"joe","token": "[masked]","n":1}"#),
            (r#"{"token":12,"n":1}"#, r#"{"token":[masked],"n":1}"#),
            (r#"{\"secret\":\"abc\"}"#, r#"{\"secret\":\"[masked]"}"#),
            ("POST / HTTP/1.1\r\nCookie: a=b; c=d\r\nHost: h", "POST / HTTP/1.1\r\nCookie: [masked]\r\nHost: h"),
            ("authorization: Bearer abc", "authorization: [masked]"),
            ("Matched Data: union found within ARGS:pwd: union", "Matched Data: union found within ARGS:pwd: [masked]"),
            ("password=", "password="),
            ("token==é=x", "token=[masked]"),
            ("http://h:80/?a=é", "http://h:80/?a=é"),
        ] {
            assert_eq!(mask(text), expected, "{text}");
        }
    }
}
