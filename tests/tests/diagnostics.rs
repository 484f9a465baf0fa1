//! Every diagnostic has a page in `spec/diagnostics/`: its bad example gives exactly this diagnostic, rendered as the page
//! shows it, and its good example gives none.

use std::collections::BTreeSet;
use std::fs;
use trainc::diagnostic::{CATALOG, Entry, render};
use trainc_tests::markdown::{blocks, section};
use trainc_tests::{diagnose, diagnose_grammar, golden, root};

#[test]
fn every_page_shows_its_diagnostic_and_how_to_avoid_it() {
    let complaints: Vec<String> = CATALOG.iter().filter_map(|entry| check_page(entry).err()).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n\n"));
}

fn check_page(entry: &Entry) -> Result<(), String> {
    let file = root().join("spec/diagnostics").join(format!("{}.md", entry.id));
    let page = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let complain = |text: String| Err(format!("{}: {text}", entry.id));
    if !page.starts_with(&format!("# {}: {}\n\n## What it means\n\n", entry.id, entry.title)) {
        return complain(format!("the page does not begin with `# {}: {}` and what it means", entry.id, entry.title));
    }
    let (Some(wrong), Some(right)) = (section(&page, "## Wrong"), section(&page, "## Right")) else {
        return complain("`## Wrong` or `## Right` is missing".into());
    };
    let (wrong, right) = (blocks(wrong), blocks(right));
    let [bad, shown] = &wrong[..] else { return complain("`## Wrong` needs an example and a `text` block".into()) };
    let [good] = &right[..] else { return complain("`## Right` needs one example".into()) };

    let diagnose = if entry.id.starts_with("E01") { diagnose_grammar } else { diagnose };
    let (sources, found) = diagnose("example.train", &example(bad.language, bad.text));
    let ids: BTreeSet<&str> = found.iter().map(|diagnostic| diagnostic.id).collect();
    if ids != BTreeSet::from([entry.id]) {
        return complain(format!("the bad example gives {ids:?}\n{}", render(&sources, &found, false)));
    }
    let (good_sources, unexpected) = diagnose("example.train", good.text.as_bytes());
    if !unexpected.is_empty() {
        return complain(format!("the good example gives\n{}", render(&good_sources, &unexpected, false)));
    }
    let rendered = format!("{}\n", render(&sources, &found, false).trim_end());
    let at = page.find("## Wrong").unwrap_or(0) + blocks(&page[page.find("## Wrong").unwrap_or(0)..])[1].start;
    let blessed = format!("{}{rendered}{}", &page[..at], &page[at + shown.text.len()..]);
    golden::compare(&file, &blessed).map_or(Ok(()), Err)
}

/// The bytes of an example; in a `bytes` block `\xNN` is a byte.
fn example(language: &str, text: &str) -> Vec<u8> {
    if language != "bytes" {
        return text.into();
    }
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or("").as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two hexadecimal digits follow `\\x`"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

#[test]
fn ids_pages_and_the_compiler_agree() {
    let listed: BTreeSet<String> = CATALOG.iter().map(|entry| entry.id.to_owned()).collect();
    assert_eq!(listed.len(), CATALOG.len(), "an id is listed twice");
    let pages: BTreeSet<String> = fs::read_dir(root().join("spec/diagnostics"))
        .expect("the pages are in the repository")
        .map(|page| page.expect("the folder can be read").path())
        .map(|page| page.file_stem().unwrap_or_default().to_string_lossy().into_owned())
        .filter(|name| name != "README")
        .collect();
    assert_eq!(listed, pages, "catalog.rs and spec/diagnostics/ list different ids");
    let mut used = BTreeSet::new();
    ids_in(&root().join("compiler/src"), &mut used);
    assert_eq!(listed, used, "catalog.rs and the compiler's code name different ids");
}

/// Collects the ids in quotes in all Rust files but the catalog.
fn ids_in(folder: &std::path::Path, ids: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the sources can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            ids_in(&path, ids);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("catalog.rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            ids.extend(text.split('"').filter(|part| is_id(part)).map(str::to_owned));
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 5 && text.starts_with(['E', 'W']) && text[1..].bytes().all(|byte| byte.is_ascii_digit())
}
