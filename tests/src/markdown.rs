//! Fenced blocks in Markdown pages.

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The word behind the fence.
    pub language: &'a str,
    /// What stands between the fences, with the last newline.
    pub text: &'a str,
    /// Where that text begins in the page.
    pub start: usize,
}

/// The fenced blocks of a page, in order.
pub fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize)> = None;
    let mut place = 0;
    for line in page.split_inclusive('\n') {
        match (open, line.trim_end().strip_prefix("```")) {
            (None, Some(language)) => open = Some((language, place + line.len())),
            (Some((language, start)), Some("")) => {
                blocks.push(Block { language, text: &page[start..place], start });
                open = None;
            }
            _ => {}
        }
        place += line.len();
    }
    blocks
}

/// The part of a page under a heading, up to the next heading of the same level.
pub fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let start = page.find(&format!("\n{heading}\n"))? + heading.len() + 2;
    let level = heading.split(' ').next().unwrap_or("#");
    let end = page[start..].find(&format!("\n{level} ")).map_or(page.len(), |end| start + end);
    Some(&page[start..end])
}
