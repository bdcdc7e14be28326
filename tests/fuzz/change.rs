//! Changes of inputs without looking at what they reach.

/// Values at which arithmetic ends.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "255",
    "65535",
    "2147483647",
    "4294967295",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e400",
];
const TOKENS: [&str; 14] = [
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "\\",
    "\u{202e}",
    "{{secret:a:b}}",
    "://u:p@h",
    "\r\n",
];

/// xorshift64*: the same numbers in each run.
pub struct Random(u64);

impl Random {
    pub fn new(name: &str) -> Self {
        let seed = name.bytes().fold(0x9e37_79b9_7f4a_7c15, |seed: u64, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(seed | 1)
    }

    /// Below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (number % end.max(1) as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// Changes of seeds.
pub struct Changes<'a> {
    seeds: &'a [Vec<u8>],
    max_len: usize,
    random: Random,
}

impl<'a> Changes<'a> {
    pub fn new(seeds: &'a [Vec<u8>], max_len: usize, random: Random) -> Self {
        Self { seeds, max_len, random }
    }

    fn seed(&mut self) -> &'a [u8] {
        let at = self.random.below(self.seeds.len());
        self.seeds.get(at).map_or(&[], Vec::as_slice)
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.seed().to_vec();
        for _ in 0..=self.random.below(4) {
            self.change(&mut input);
        }
        input.truncate(self.max_len);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len());
        let end = (at + 1 + self.random.below(16)).min(input.len());
        match self.random.below(9) {
            0 if !input.is_empty() => input[at] ^= 1 << self.random.below(8),
            1 if !input.is_empty() => input[at] = [0, 0xff, b'"', b'{', b'0', 0x80][self.random.below(6)],
            2 => drop(input.drain(at.min(end)..end)),
            3 => {
                let piece = input.get(at..end).unwrap_or_default().to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let other = self.seed();
                let from = self.random.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 => {
                let number = self.random.of(&NUMBERS);
                replace_number(input, at, number.as_bytes());
            }
            6 => {
                let token = self.random.of(&TOKENS);
                input.splice(at..at, token.bytes());
            }
            7 => input.truncate(at),
            _ => input.insert(at, self.random.below(256) as u8),
        }
    }
}

/// Puts `number` in place of the digits at or after `at`.
fn replace_number(input: &mut Vec<u8>, at: usize, number: &[u8]) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = input[at..].iter().position(is_digit).map(|start| at + start) else {
        return;
    };
    let length = input[start..].iter().take_while(|byte| is_digit(byte)).count();
    input.splice(start..start + length, number.iter().copied());
}
