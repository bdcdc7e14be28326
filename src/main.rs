use std::process::ExitCode;

fn main() -> ExitCode {
    ei_greengrass::cli::main()
}
