//! `trainc generate`.

use super::{arguments::Generate, failure::Failure, output, run};
use trainc_runtime::GenerateOptions;

/// Prints the prompt and how the model goes on.
pub fn generate(arguments: &Generate) -> Result<(), Failure> {
    let (mut session, _) = run::newest(&arguments.directory, &arguments.execution, &arguments.base)?;
    let options = GenerateOptions {
        max_tokens: arguments.tokens,
        temperature: f64::from(arguments.temperature),
        top_k: arguments.top_k,
        seed: arguments.seed,
    };
    let text = session.generate(&arguments.prompt, &options).map_err(|error| run::of_session(error, &session))?;
    run::warn_of_changed_data(&session);
    output::raw(format_args!("{}{text}\n", arguments.prompt));
    Ok(())
}
