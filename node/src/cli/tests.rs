use super::*;

/// Every command and subcommand, by its path.
fn commands() -> Vec<(String, clap::Command)> {
    fn below(path: &str, command: &clap::Command, all: &mut Vec<(String, clap::Command)>) {
        all.push((path.into(), command.clone()));
        for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
            below(&format!("{path} {}", child.get_name()), child, all);
        }
    }
    let mut all = Vec::new();
    let mut root = Cli::command();
    root.build();
    below("rookery", &root, &mut all);
    all
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_with_an_example_that_parses() {
    for (path, mut command) in commands() {
        let help = command.render_long_help().to_string();
        let Some((_, examples)) = help.split_once("Example:\n") else {
            panic!("`{path} --help` has no example: {help}")
        };
        let line = examples
            .lines()
            .map(str::trim)
            .find(|line| line.contains("rookery "))
            .unwrap();
        // Shell around the command: variables before it, a redirection after it.
        let words = line
            .split_whitespace()
            .skip_while(|word| *word != "rookery")
            .take_while(|word| *word != ">");
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "`{line}`: {}", parsed.unwrap_err());
        assert!(line.contains(&path), "`{line}` is not an example of `{path}`");
        assert!(command.get_about().is_some(), "`{path}` does not say what it does");
    }
}

#[test]
fn the_commands_of_this_version_are_there() {
    let paths: Vec<String> = commands().into_iter().map(|(path, _)| path).collect();
    for command in [
        "demo",
        "dev",
        "node",
        "secret",
        "config check",
        "config print",
        "status",
        "join",
        "new",
        "build",
        "sdk",
        "call",
        "load echo",
        "load fanout",
        "load idle",
        "load create",
        "module check",
        "module publish",
        "module list",
        "module remove",
        "module keygen",
        "module sign",
        "match list",
        "match show",
        "match end",
        "match kick",
        "match move",
        "match upgrade",
        "node forget",
        "drain",
        "health",
        "records",
        "content put",
    ] {
        assert!(
            paths.contains(&format!("rookery {command}")),
            "{command} is not in {paths:?}"
        );
    }
}

#[test]
fn what_is_wrong_with_the_usage_or_the_configuration_exits_64() {
    let exit = |line: &str| format!("{:?}", run(line.split_whitespace().map(OsString::from)));
    let usage = format!("{:?}", ExitCode::from(EXIT_USAGE));
    let failure = format!("{:?}", ExitCode::from(1));
    for line in [
        "rookery",
        "rookery nodes",
        "rookery node --nmae x",
        "rookery demo --nodes 0",
        "rookery match show",
        "rookery config check --config /nonexistent/rookery.toml",
        "rookery node --config /nonexistent/rookery.toml",
        "rookery node --listen-client nowhere",
        "rookery status --ops https://example.org",
        "rookery call world",
        "rookery call 2:wait:hello",
        "rookery call --url ftp://127.0.0.1:1 world.list",
        "rookery load echo --url 127.0.0.1:1",
        "rookery new Chess",
        "rookery new chess --template opera",
        "rookery new chess --sdk nowhere",
    ] {
        assert_eq!(exit(line), usage, "{line}");
    }
    // Nothing listens on port 1.
    assert_eq!(exit("rookery status --ops http://127.0.0.1:1"), failure);
    assert_eq!(exit("rookery call --url ws://127.0.0.1:1 wait:x"), failure);
    assert_eq!(exit("rookery --help"), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(exit("rookery secret"), format!("{:?}", ExitCode::SUCCESS));
}

#[test]
fn a_new_secret_is_one_that_a_node_takes() {
    let one = secret::fresh();
    assert!(one.len() >= crate::config::SECRET_BYTES_MIN);
    assert_ne!(one, secret::fresh());
}
