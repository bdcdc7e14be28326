//! Coverage-guided fuzzing of the target that `FUZZ_TARGET` names. See tests/fuzz.sh.

#![no_main]

use std::process::abort;
use std::sync::OnceLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        fuzz::find(&name).unwrap_or_else(|| {
            let names: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
            eprintln!("FUZZ_TARGET is '{name}'; accepted: {}", names.join(", "));
            abort()
        })
    })
}

fuzz_target!(
    init: {
        target();
        fuzz::end_at_panics(|| abort());
    },
    |data: &[u8]| target().run(data)
);
