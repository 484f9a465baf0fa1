//! The table of all diagnostics. A new one needs a line here and a page in `spec/diagnostics/`.
//!
//! Ids never change their meaning and are never used again: `E01xx` text and grammar, `E02xx` names, `E03xx` shapes and
//! kinds, `E04xx` units and constants, `E05xx` definitions, parameters, optimizers and filters, `E06xx` data, `E07xx` clauses of
//! `train` and methods, `E08xx` resources; warnings likewise with `W`.

/// A kind of diagnostic and its manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The id, e.g. `E0107`.
    pub id: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// The page, Markdown: `# id: title`, what it means, `## Wrong` with an example and its rendering, `## Right`.
    pub page: &'static str,
}

/// The entry of an id.
pub fn entry(id: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|entry| entry.id == id)
}

macro_rules! catalog {
    ($($id:literal $title:literal)*) => {
        /// All diagnostics, by id.
        pub const CATALOG: &[Entry] = &[$(Entry {
            id: $id,
            title: $title,
            page: include_str!(concat!("../../../spec/diagnostics/", $id, ".md")),
        }),*];
    };
}

catalog! {
    "E0101" "a character that is not part of the language"
    "E0102" "a text without a closing quote"
    "E0103" "a malformed number or text"
    "E0104" "a sign or word of another language"
    "E0105" "a bracket that is never closed"
    "E0106" "a closing bracket too many, or of the wrong kind"
    "E0107" "a missing expression"
    "E0108" "something that does not belong there"
    "E0109" "not an item"
    "E0110" "larger than a limit"
    "E0111" "a missing name"
    "E0112" "a definition or block without its body"
    "E0113" "a declaration that is not complete"
    "E0114" "a lost value"
    "E0115" "a clause without its keyword"
    "E0116" "a file that is not text"
    "E0117" "a malformed shape"
    "E0118" "an unknown unit"
    "E0119" "chained comparisons"
    "E0120" "assignment to something that is not a name"
    "E0121" "an `if` without both values"
    "E0122" "an argument without a name behind one with a name"
    "E0123" "a definition inside a body"
    "E0130" "the result of a call that is called"
    "E0131" "a range between brackets"
    "E0201" "an unknown name"
    "E0202" "a name defined twice"
    "E0205" "an import that cannot be loaded"
    "E0206" "a circle of imports"
    "E0207" "a constant that depends on itself"
    "E0210" "something called that is not a definition"
    "E0211" "a missing argument"
    "E0212" "an argument that nobody asked for"
    "E0213" "the wrong number of axes"
    "E0214" "a data block where a value belongs"
    "E0215" "something used where it cannot be"
    "E0301" "an argument of the wrong shape"
    "E0302" "shapes that do not go together"
    "E0303" "integers where numbers are needed"
    "E0304" "a value of the wrong kind"
    "E0305" "an index with two extents"
    "E0306" "the wrong number of indices"
    "E0307" "an index that stands twice"
    "E0308" "brackets with something that is no index"
    "E0309" "an element that does not exist"
    "E0310" "an index that the tensor does not have"
    "E0312" "an operation that does not apply"
    "E0314" "an index without a range"
    "E0315" "a window that does not fit"
    "E0316" "an order that does not list the free indices"
    "E0317" "a reshape that changes the number of elements"
    "E0318" "more or fewer names than values"
    "E0330" "a tuple with a part in index notation"
    "E0331" "a dim in arithmetic between brackets"
    "E0332" "a number where an index belongs"
    "E0333" "a value of the graph where an index belongs"
    "E0334" "an axis by its number"
    "E0335" "a dim of `reshape` that is left to be found out"
    "E0336" "a clause written as an assignment"
    "E0401" "a number that is undefined"
    "E0402" "a number that must be known while compiling"
    "E0403" "a dim that is not a whole number"
    "E0404" "a dim out of range"
    "E0405" "units that do not go together"
    "E0406" "a number with the wrong unit"
    "E0501" "a statement that does not belong there"
    "E0502" "no way to start a parameter"
    "E0503" "a parameter whose shape depends on the batch"
    "E0504" "`..` in the shape of something new"
    "E0505" "an input without a batch"
    "E0506" "a count that is not a whole number"
    "E0507" "a value that changes its shape in a `repeat`"
    "E0508" "a model without an output"
    "E0509" "nothing to train"
    "E0510" "a parameter without a gradient"
    "E0512" "an optimizer that moves nothing"
    "E0513" "a matrix optimizer with other than two dims"
    "E0514" "an update of something else"
    "E0515" "an unknown hyperparameter"
    "E0516" "a group without parameters"
    "E0517" "a filter whose statements are out of order"
    "E0518" "a requirement that is not met"
    "E0519" "a `sample` that is not a sum of gradients"
    "E0520" "a filter that changes nothing"
    "E0601" "a data block with two sources"
    "E0602" "text without a tokenizer"
    "E0603" "a field made the wrong way"
    "E0604" "data without records"
    "E0605" "an input without data"
    "E0606" "data of another kind than the input"
    "E0607" "records of another width than the input"
    "E0608" "data with more values than the model knows"
    "E0650" "a clause about other records"
    "E0651" "braces that nobody reads"
    "E0652" "an evaluation without held-out data"
    "E0653" "a setting of frozen parameters"
    "E0701" "an unknown clause"
    "E0702" "a clause that stands twice"
    "E0703" "a clause that cannot be understood"
    "E0704" "a number out of range"
    "E0705" "text is needed"
    "E0706" "a clause that is missing"
    "E0707" "no definition of this name and kind"
    "E0708" "`next` of something else"
    "E0709" "a metric whose name is taken"
    "E0710" "an unknown precision"
    "E0711" "a loss that is not one number"
    "E0712" "epochs that cannot be counted"
    "E0713" "a program without `train`"
    "E0714" "two `train` blocks"
    "E0720" "a length that is no part of training"
    "E0721" "time where a number belongs"
    "E0722" "a learning rate below 0"
    "E0750" "a private program without an amount"
    "E0751" "shuffled batches in private training"
    "E0752" "samples that depend on each other"
    "E0753" "an unknown number of records"
    "E0754" "an impossible `delta`"
    "E0755" "a parameter with a part for each row"
    "E0756" "private training without a bound"
    "E0757" "a batch larger than the data"
    "E0758" "a budget that no noise meets"
    "E0790" "a method that is not implemented yet"
    "E0801" "over the memory budget"
    "E0802" "a definition that calls itself"
    "E0803" "a program that is too large"
    "E0804" "a tensor that is too large"
    "W0201" "a name that is never used"
    "W0501" "a `repeat` that changes nothing"
    "W0502" "a group that changes nothing"
    "W0720" "a length beyond the end of training"
    "W0721" "a held-out number that is a mean of batches"
    "W0750" "shuffled batches, accounted for as drawn"
    "W0751" "a large `delta`"
    "W0752" "noise from a public seed"
    "W0753" "metrics of private data"
}
