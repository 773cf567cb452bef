//! The requests of the bench: each kind a thousand times, no two alike, the same ones in every run.

use tests::dice::Dice;

/// Of each kind.
pub(super) const COUNT: usize = 1000;

/// Words that no rule minds.
const WORDS: [&str; 40] = [
    "garden", "lamp", "river", "stone", "window", "paper", "silver", "orange", "forest", "cloud", "pencil", "mirror",
    "candle", "blanket", "harbour", "meadow", "violin", "copper", "basket", "marble", "winter", "summer", "autumn",
    "spring", "button", "carpet", "ladder", "bottle", "hammer", "ribbon", "saddle", "teapot", "walnut", "yellow",
    "purple", "island", "valley", "bridge", "castle", "market",
];

/// A kind of requests.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What CRS at paranoia level 1 does with all of them.
    pub(super) blocked: bool,
    make: fn(&mut Dice) -> Vec<u8>,
}

pub(super) const CASES: [Case; 7] = [
    Case { name: "get", blocked: false, make: get },
    Case { name: "post_json_350b", blocked: false, make: |dice| post(dice, "application/json", order) },
    Case { name: "post_form_1k", blocked: false, make: |dice| post(dice, "application/x-www-form-urlencoded", form) },
    Case { name: "post_json_100k_members", blocked: false, make: |dice| post(dice, "application/json", members) },
    Case { name: "post_json_100k_string", blocked: false, make: |dice| post(dice, "application/json", string) },
    Case { name: "post_json_100k_numbers", blocked: false, make: |dice| post(dice, "application/json", numbers) },
    Case { name: "attack_sqli", blocked: true, make: attack },
];

impl Case {
    /// The `number`th of them, whole.
    pub(super) fn request(&self, number: usize) -> Vec<u8> {
        let mut dice = Dice(number as u64 + 1);
        (self.make)(&mut dice)
    }

    pub(super) fn requests(&self) -> Vec<Vec<u8>> {
        (0..COUNT).map(|number| self.request(number)).collect()
    }
}

/// What requests are made of.
trait Pieces {
    fn word(&mut self) -> &'static str;
    fn words(&mut self, count: usize, between: &str) -> String;
    fn hex(&mut self, digits: usize) -> String;
}

impl Pieces for Dice {
    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }

    fn words(&mut self, count: usize, between: &str) -> String {
        (0..count).map(|_| self.word()).collect::<Vec<_>>().join(between)
    }

    fn hex(&mut self, digits: usize) -> String {
        format!("{:016x}{:016x}", self.roll(), self.roll())[..digits].to_owned()
    }
}

/// Twelve headers of a browser, and three cookies.
fn head(dice: &mut Dice, line: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: shop.example.com\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
         Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br\r\n\
         Referer: https://shop.example.com/{}/{}\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\n\
         Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nCache-Control: max-age=0\r\nDNT: 1\r\n\
         Cookie: visitor={}; theme={}; basket={}\r\n",
        dice.word(),
        dice.below(100_000),
        dice.hex(24),
        dice.word(),
        dice.below(1_000_000),
    )
}

fn get(dice: &mut Dice) -> Vec<u8> {
    let line = format!(
        "GET /{}/{}?category={}&page={}&sort={}&query={}&limit={}",
        dice.word(),
        dice.word(),
        dice.word(),
        dice.below(200),
        dice.word(),
        dice.words(3, "+"),
        dice.below(100),
    );
    (head(dice, &line) + "\r\n").into_bytes()
}

fn post(dice: &mut Dice, media: &str, body: fn(&mut Dice) -> String) -> Vec<u8> {
    let line = format!("POST /{}/{}", dice.word(), dice.below(100_000));
    let head = head(dice, &line);
    let body = body(dice);
    format!("{head}Content-Type: {media}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Some 350 bytes.
fn order(dice: &mut Dice) -> String {
    let mut item = || {
        format!(
            "{{\"sku\":\"{}-{}\",\"name\":\"{}\",\"count\":{},\"price\":{}.{:02}}}",
            dice.word(),
            dice.below(10_000),
            dice.words(2, " "),
            dice.below(10) + 1,
            dice.below(500),
            dice.below(100),
        )
    };
    let items = [item(), item(), item()].join(",");
    format!(
        "{{\"order\":{},\"customer\":{{\"name\":\"{}\",\"city\":\"{}\"}},\"items\":[{items}],\"note\":\"{}\",\"gift\":{}}}",
        dice.below(1_000_000),
        dice.words(2, " "),
        dice.word(),
        dice.words(4, " "),
        dice.below(2) == 1,
    )
}

/// Some 1,000 bytes in 16 fields.
fn form(dice: &mut Dice) -> String {
    let field = |number: usize| {
        let value = match number % 4 {
            0 => dice.below(1_000_000).to_string(),
            1 => dice.words(12, "+"),
            2 => format!("{}%40example.com", dice.word()),
            _ => dice.words(8, "+"),
        };
        format!("{}_{number}={value}", WORDS[number])
    };
    (0..16).map(field).collect::<Vec<_>>().join("&")
}

/// 2,000 members of 50 bytes.
fn members(dice: &mut Dice) -> String {
    let member = |number: usize| format!("\"{}{number}\":\"{}\"", dice.word(), dice.words(5, " "));
    format!("{{{}}}", (0..2000).map(member).collect::<Vec<_>>().join(","))
}

/// One string of 100,000 bytes.
fn string(dice: &mut Dice) -> String {
    let mut text = String::new();
    while text.len() < 100_000 {
        text += dice.word();
        text.push(' ');
    }
    format!("{{\"text\":\"{}\"}}", text.trim_end())
}

/// 20,000 numbers of up to five digits.
fn numbers(dice: &mut Dice) -> String {
    format!("[{}]", (0..20_000).map(|_| dice.below(100_000).to_string()).collect::<Vec<_>>().join(","))
}

fn attack(dice: &mut Dice) -> Vec<u8> {
    let injection = match dice.below(4) {
        0 => format!("{}%27+OR+{n}%3D{n}--+", dice.below(1000), n = dice.below(1000)),
        1 => format!("-{}+UNION+SELECT+user%2Cpassword+FROM+users--", dice.below(1000)),
        2 => format!("{}%27%3B+DROP+TABLE+{}--", dice.word(), dice.word()),
        _ => format!("{}%27+AND+SLEEP%28{}%29%23", dice.word(), dice.below(9) + 1),
    };
    let line = format!("GET /{}?id={injection}&page={}&sort={}", dice.word(), dice.below(200), dice.word());
    (head(dice, &line) + "\r\n").into_bytes()
}
