//! The `weirmq` command.

fn main() -> std::process::ExitCode {
    weirmq::cli::main()
}
