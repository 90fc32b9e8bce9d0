//! An XML document as a small tree, and its mixed content as paragraphs or code.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

/// An element, its name without namespace prefix.
#[derive(Debug, Default)]
pub struct Element {
    /// Local name.
    pub name: String,
    /// Attributes in document order, names without prefix.
    pub attributes: Vec<(String, String)>,
    /// Children in document order.
    pub content: Vec<Node>,
}

/// What stands inside an element.
#[derive(Debug)]
pub enum Node {
    /// Character data with references resolved.
    Text(String),
    /// A child element.
    Element(Element),
}

/// A document that cannot be read as XML.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// Refused by the XML reader.
    #[error("not well-formed XML near byte {position}: {source}")]
    Malformed {
        /// Where reading stopped.
        position: u64,
        /// What the reader says.
        source: quick_xml::Error,
    },
    /// An entity that XML does not predefine.
    #[error("unknown entity '&{name};' near byte {position}: only XML's own five may be used")]
    Entity {
        /// Its name.
        name: String,
        /// Where reading stopped.
        position: u64,
    },
    /// The document ends inside an element, or holds none.
    #[error("the document ends before its root element does: is the file complete?")]
    Truncated,
}

/// Reads a whole document and returns its root element.
///
/// # Errors
/// [`XmlError`] when the text is not well-formed, is cut short or uses unknown entities.
pub fn parse(text: &str) -> Result<Element, XmlError> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    loop {
        let event = reader.read_event();
        let position = reader.buffer_position();
        let malformed = |source| XmlError::Malformed { position, source };
        match event.map_err(malformed)? {
            Event::Start(start) => open.push(element(&start).map_err(malformed)?),
            Event::Empty(start) => {
                let child = element(&start).map_err(malformed)?;
                match open.last_mut() {
                    Some(parent) => parent.content.push(Node::Element(child)),
                    None => return Ok(child),
                }
            }
            Event::End(_) => {
                let child = open.pop().ok_or(XmlError::Truncated)?;
                match open.last_mut() {
                    Some(parent) => parent.content.push(Node::Element(child)),
                    None => return Ok(child),
                }
            }
            Event::Text(text) => {
                let text = text.decode().map_err(|e| malformed(e.into()))?;
                push_text(&mut open, &text);
            }
            Event::CData(data) => {
                let text = data.decode().map_err(|e| malformed(e.into()))?;
                push_text(&mut open, &text);
            }
            Event::GeneralRef(reference) => {
                if let Some(c) = reference.resolve_char_ref().map_err(malformed)? {
                    push_text(&mut open, c.encode_utf8(&mut [0; 4]));
                } else {
                    let name = reference.decode().map_err(|e| malformed(e.into()))?;
                    let text = resolve_predefined_entity(&name).ok_or(XmlError::Entity {
                        name: name.to_string(),
                        position,
                    })?;
                    push_text(&mut open, text);
                }
            }
            Event::Eof => return Err(XmlError::Truncated),
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
        }
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, quick_xml::Error> {
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute?;
        let name = String::from_utf8_lossy(attribute.key.local_name().as_ref()).into_owned();
        attributes.push((name, attribute.unescape_value()?.into_owned()));
    }
    Ok(Element {
        name: String::from_utf8_lossy(start.local_name().as_ref()).into_owned(),
        attributes,
        content: Vec::new(),
    })
}

fn push_text(open: &mut [Element], text: &str) {
    let Some(parent) = open.last_mut() else {
        return;
    };
    if let Some(Node::Text(before)) = parent.content.last_mut() {
        before.push_str(text);
    } else {
        parent.content.push(Node::Text(text.to_owned()));
    }
}

impl Element {
    /// An attribute's value, or "" where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    /// Child elements with this name.
    pub fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.content.iter().filter_map(move |node| match node {
            Node::Element(child) if child.name == name => Some(child),
            _ => None,
        })
    }

    /// The elements two levels down: `<list><item/><item/></list>`.
    pub fn items<'a>(&'a self, list: &'a str, item: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children(list)
            .flat_map(move |list| list.children(item))
    }

    /// The first child's paragraphs joined into one line, or "".
    pub fn line(&self, name: &str) -> String {
        self.children(name)
            .next()
            .map(|child| child.paragraphs().join(" "))
            .unwrap_or_default()
    }

    /// Mixed content as prose: one string a block element, white space collapsed, none empty.
    pub fn paragraphs(&self) -> Vec<String> {
        let mut out = vec![String::new()];
        self.prose(&mut out);
        out.into_iter()
            .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|text| !text.is_empty())
            .collect()
    }

    fn prose(&self, out: &mut Vec<String>) {
        for node in &self.content {
            match node {
                Node::Text(text) => {
                    if let Some(last) = out.last_mut() {
                        last.push_str(text);
                    }
                }
                Node::Element(child) => {
                    let inline = matches!(child.name.as_str(), "b" | "i" | "sup" | "sub" | "a");
                    if !inline {
                        out.push(String::new());
                    }
                    child.prose(out);
                    if !inline {
                        out.push(String::new());
                    }
                }
            }
        }
    }

    /// Mixed content as source text: `br` ends a line, a nested `div` is indented.
    pub fn code(&self) -> String {
        let mut lines = vec![(0, String::new())];
        self.code_lines(0, &mut lines);
        lines
            .into_iter()
            .map(|(depth, text): (usize, String)| {
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                (depth, text)
            })
            .filter(|(_, text)| !text.is_empty())
            .map(|(depth, text)| format!("{}{text}", "  ".repeat(depth.saturating_sub(1))))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn code_lines(&self, depth: usize, lines: &mut Vec<(usize, String)>) {
        for node in &self.content {
            match node {
                Node::Text(text) => {
                    if let Some((_, last)) = lines.last_mut() {
                        last.push_str(text);
                    }
                }
                Node::Element(child) if child.name == "br" => lines.push((depth, String::new())),
                Node::Element(child) if child.name == "div" => {
                    lines.push((depth + 1, String::new()));
                    child.code_lines(depth + 1, lines);
                    lines.push((depth, String::new()));
                }
                Node::Element(child) => child.code_lines(depth, lines),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_content_becomes_paragraphs_and_code() {
        let root = parse(
            "<r><d>One <x:b xmlns:x='u'>bold</x:b> &lt;word&gt;\n  <p>Two &#65;</p></d>\
             <c><div>if (x) {<div>y();<br/>z();</div>}</div></c></r>",
        )
        .unwrap();
        let d = root.children("d").next().unwrap();
        assert_eq!(d.paragraphs(), ["One bold <word>", "Two A"]);
        let c = root.children("c").next().unwrap();
        assert_eq!(c.code(), "if (x) {\n  y();\n  z();\n}");
    }

    #[test]
    fn broken_documents_are_refused() {
        assert!(matches!(
            parse("<a><b></a>"),
            Err(XmlError::Malformed { .. })
        ));
        assert!(matches!(parse("<a><b>"), Err(XmlError::Truncated)));
        assert!(matches!(
            parse("<a>&nbsp;</a>"),
            Err(XmlError::Entity { .. })
        ));
        assert!(matches!(parse(""), Err(XmlError::Truncated)));
    }
}
