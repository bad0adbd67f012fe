//! Tries one parser on inputs that it makes of the corpus: `cargo run --example fuzz -- TARGET SECONDS [SEED]`.
//!
//! Blind: inputs are cut, spliced, repeated and flipped without a look at what the parser does. An input that breaks
//! something is printed before the panic goes on.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use scorefront::core::dice::Dice;
use scorefront::testing::fuzz::TARGETS;

const BYTES_MAX: usize = 8 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    let target = TARGETS.iter().find(|target| arguments.first().is_some_and(|name| name == target.name));
    let (Some(target), Some(seconds)) = (target, number(1)) else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("fuzz TARGET SECONDS [SEED]; targets: {}", names.join(", "));
        return ExitCode::from(2);
    };
    let folder = format!("{}/fuzz/corpus/{}", env!("CARGO_MANIFEST_DIR"), target.name);
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut corpus: Vec<_> = files.filter_map(|file| std::fs::read(file.path()).ok()).collect();
    corpus.sort();
    corpus.push(Vec::new());
    let (mut dice, mut count) = (Dice::new(number(2).unwrap_or(1)), 0_u64);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let input = mutate(&corpus, &mut dice);
        if let Err(panic) = std::panic::catch_unwind(|| (target.run)(&input)) {
            eprintln!("broken by: {}", input.escape_ascii());
            std::panic::resume_unwind(panic);
        }
        count += 1;
    }
    eprintln!("{}: {count} inputs in {seconds} s, nothing broken", target.name);
    ExitCode::SUCCESS
}

fn mutate(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = pick(corpus, dice).to_vec();
    for _ in 0..=dice.below(6) {
        let at = dice.below(input.len() as u32 + 1) as usize;
        match dice.below(6) {
            0 => input.truncate(at),
            1 => input.insert(at, dice.throw() as u8),
            2 if at < input.len() => drop(input.remove(at)),
            3 if at < input.len() => input[at] ^= 1 << dice.below(8),
            4 => {
                let bytes = [0, b'\n', b'\r', b'/', b'%', b'.', b':', b'\\', b';', b',', 0x80, 0xff];
                input.insert(at, bytes[dice.below(bytes.len() as u32) as usize]);
            }
            _ => {
                let other = pick(corpus, dice);
                let from = dice.below(other.len() as u32 + 1) as usize;
                let to = from + dice.below((other.len() - from) as u32 + 1) as usize;
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    input.truncate(BYTES_MAX);
    input
}

fn pick<'c>(corpus: &'c [Vec<u8>], dice: &mut Dice) -> &'c [u8] {
    &corpus[dice.below(corpus.len() as u32) as usize]
}
