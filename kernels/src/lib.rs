//! test
pub fn probe() -> bool {
    let context = melior::Context::new();
    let registry = melior::dialect::DialectRegistry::new();
    melior::utility::register_all_dialects(&registry);
    context.append_dialect_registry(&registry);
    context.load_all_available_dialects();
    melior::ir::Module::parse(&context, "module {}").is_some()
}
#[test]
fn links() { assert!(probe()); }
