//! The catalogue's records, as far as the embedded data is made from them.

use std::collections::BTreeMap;

use super::xml::{self, Element, XmlError};

/// The release that the embedded assets were made from.
pub const VERSION: &str = "4.14";
/// The view that puts every weakness into exactly one category: "Comprehensive
/// Categorization for Software Assurance Trends".
const PARTITION_VIEW: u32 = 1400;

/// A catalogue that is not the one expected.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Not readable as XML.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// Another document or another release.
    #[error("expected <Weakness_Catalog> version {VERSION}, found <{root}> version '{version}'")]
    Version {
        /// The root element's name.
        root: String,
        /// Its `Version` attribute.
        version: String,
    },
    /// An identifier that is not a number.
    #[error("<{element}> has the identifier '{got}': expected a number")]
    Identifier {
        /// Which element.
        element: String,
        /// What stands there.
        got: String,
    },
    /// View 1400 does not put each live weakness into exactly one category.
    #[error("CWE-{cwe} stands in {found} categories of view {PARTITION_VIEW}: expected one")]
    Partition {
        /// Which weakness.
        cwe: u32,
        /// In how many categories it stands.
        found: usize,
    },
}

/// A titled piece of prose or code.
#[derive(Debug, Clone)]
pub struct Section {
    /// What it is: "Extended description", "Mitigation (Implementation)", ...
    pub title: String,
    /// Its paragraphs, or one block of code.
    pub paragraphs: Vec<String>,
}

/// A real vulnerability that shows a weakness.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its CVE identifier.
    pub reference: String,
    /// What happened, in a sentence or two.
    pub description: String,
}

/// A way against a weakness.
#[derive(Debug, Clone)]
pub struct Mitigation {
    /// Life-cycle phases, such as "Implementation".
    pub phases: Vec<String>,
    /// What to do, by paragraph.
    pub paragraphs: Vec<String>,
}

/// A weakness that is not deprecated.
#[derive(Debug, Clone)]
pub struct Weakness {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// 0 for the most general (pillar) to 3 for the most specific (variant).
    pub specificity: u8,
    /// Its category in view 1400.
    pub category: u32,
    /// The short description.
    pub description: String,
    /// Real vulnerabilities.
    pub reports: Vec<Report>,
    /// Mitigations.
    pub mitigations: Vec<Mitigation>,
    /// Every other prose, in the catalogue's order.
    pub sections: Vec<Section>,
}

impl Weakness {
    /// "CWE-79: Improper Neutralization ...".
    pub fn label(&self) -> String {
        format!("CWE-{}: {}", self.id, self.name)
    }
}

/// A category or a view: a name and prose about it.
#[derive(Debug, Clone)]
pub struct Grouping {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Summary or objective, audience and notes.
    pub sections: Vec<Section>,
}

/// What is read from the catalogue.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// Live weaknesses by number.
    pub weaknesses: Vec<Weakness>,
    /// Live categories and views by number.
    pub groupings: Vec<Grouping>,
}

impl Catalogue {
    /// Reads the catalogue's XML.
    ///
    /// # Errors
    /// [`CatalogueError`] when it is another document or release, or not as its schema says.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let root = xml::parse(text)?;
        if root.name != "Weakness_Catalog" || root.attribute("Version") != VERSION {
            return Err(CatalogueError::Version {
                version: root.attribute("Version").to_owned(),
                root: root.name,
            });
        }
        let categories = partition(&root)?;
        let mut weaknesses = Vec::new();
        for element in live(root.items("Weaknesses", "Weakness")) {
            let id = identifier(element, "ID")?;
            let found = categories.get(&id).map_or(&[][..], Vec::as_slice);
            let [category] = found else {
                return Err(CatalogueError::Partition {
                    cwe: id,
                    found: found.len(),
                });
            };
            weaknesses.push(weakness(element, id, *category));
        }
        weaknesses.sort_by_key(|w| w.id);
        let mut groupings = Vec::new();
        let groups = root.items("Categories", "Category");
        for element in live(groups.chain(root.items("Views", "View"))) {
            groupings.push(grouping(element)?);
        }
        groupings.sort_by_key(|g| g.id);
        Ok(Self {
            weaknesses,
            groupings,
        })
    }
}

fn live<'a>(elements: impl Iterator<Item = &'a Element>) -> impl Iterator<Item = &'a Element> {
    elements.filter(|e| !matches!(e.attribute("Status"), "Deprecated" | "Obsolete"))
}

fn identifier(element: &Element, attribute: &str) -> Result<u32, CatalogueError> {
    let got = element.attribute(attribute);
    got.parse().map_err(|_| CatalogueError::Identifier {
        element: element.name.clone(),
        got: got.to_owned(),
    })
}

/// Weakness -> its categories in view 1400.
fn partition(root: &Element) -> Result<BTreeMap<u32, Vec<u32>>, CatalogueError> {
    let mut members: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for category in root.items("Categories", "Category") {
        let id = identifier(category, "ID")?;
        for member in category.items("Relationships", "Has_Member") {
            if identifier(member, "View_ID")? == PARTITION_VIEW {
                let weakness = identifier(member, "CWE_ID")?;
                members.entry(weakness).or_default().push(id);
            }
        }
    }
    Ok(members)
}

fn weakness(element: &Element, id: u32, category: u32) -> Weakness {
    let reports = element
        .items("Observed_Examples", "Observed_Example")
        .map(|e| Report {
            reference: e.line("Reference"),
            description: e.line("Description"),
        })
        .collect();
    let mitigations = element
        .items("Potential_Mitigations", "Mitigation")
        .map(|e| Mitigation {
            phases: lines(e, "Phase"),
            paragraphs: prose(e, "Description"),
        })
        .collect();
    Weakness {
        id,
        name: element.attribute("Name").to_owned(),
        specificity: match element.attribute("Abstraction") {
            "Variant" => 3,
            "Base" | "Compound" => 2,
            "Class" => 1,
            _ => 0,
        },
        category,
        description: element.line("Description"),
        reports,
        mitigations,
        sections: sections(element),
    }
}

fn sections(element: &Element) -> Vec<Section> {
    let mut out = Vec::new();
    let mut add = |title: String, paragraphs: Vec<String>| {
        if !paragraphs.is_empty() {
            out.push(Section { title, paragraphs });
        }
    };
    add(
        "Extended description".into(),
        prose(element, "Extended_Description"),
    );
    for e in element.items("Background_Details", "Background_Detail") {
        add("Background".into(), e.paragraphs());
    }
    for e in element.items("Alternate_Terms", "Alternate_Term") {
        add(
            format!("Also called {}", e.line("Term")),
            prose(e, "Description"),
        );
    }
    for e in element.items("Modes_Of_Introduction", "Introduction") {
        add(
            format!("Introduced during {}", e.line("Phase")),
            prose(e, "Note"),
        );
    }
    for e in element.items("Common_Consequences", "Consequence") {
        let title = format!(
            "Consequence for {}: {}",
            lines(e, "Scope").join(", "),
            lines(e, "Impact").join("; ")
        );
        add(title, prose(e, "Note"));
    }
    for e in element.items("Detection_Methods", "Detection_Method") {
        let mut text = prose(e, "Description");
        text.extend(prose(e, "Effectiveness_Notes"));
        add(format!("Detection by {}", e.line("Method")), text);
    }
    for e in element.items("Potential_Mitigations", "Mitigation") {
        let title = format!("Note on mitigation in {}", lines(e, "Phase").join(", "));
        add(title, prose(e, "Effectiveness_Notes"));
    }
    for e in element.items("Demonstrative_Examples", "Demonstrative_Example") {
        let mut text = Vec::new();
        for part in e.content.iter().filter_map(|node| match node {
            xml::Node::Element(part) => Some(part),
            xml::Node::Text(_) => None,
        }) {
            match part.name.as_str() {
                "Intro_Text" | "Body_Text" => text.extend(part.paragraphs()),
                "Example_Code" => text.extend(Some(part.code()).filter(|code| !code.is_empty())),
                _ => {}
            }
        }
        add("Example".into(), text);
    }
    for e in element.items("Notes", "Note") {
        add(format!("{} note", e.attribute("Type")), e.paragraphs());
    }
    out
}

fn grouping(element: &Element) -> Result<Grouping, CatalogueError> {
    let mut sections = Vec::new();
    let mut add = |title: String, paragraphs: Vec<String>| {
        if !paragraphs.is_empty() {
            sections.push(Section { title, paragraphs });
        }
    };
    add("Summary".into(), prose(element, "Summary"));
    add("Objective".into(), prose(element, "Objective"));
    for e in element.items("Audience", "Stakeholder") {
        add(format!("For {}", e.line("Type")), prose(e, "Description"));
    }
    for e in element.items("Notes", "Note") {
        add(format!("{} note", e.attribute("Type")), e.paragraphs());
    }
    Ok(Grouping {
        id: identifier(element, "ID")?,
        name: element.attribute("Name").to_owned(),
        sections,
    })
}

fn prose(element: &Element, name: &str) -> Vec<String> {
    element
        .children(name)
        .flat_map(Element::paragraphs)
        .collect()
}

fn lines(element: &Element, name: &str) -> Vec<String> {
    element
        .children(name)
        .map(|e| e.paragraphs().join(" "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(version: &str, member: &str) -> String {
        format!(
            r#"<Weakness_Catalog Version="{version}"><Weaknesses>
            <Weakness ID="79" Name="XSS" Abstraction="Base" Status="Stable">
              <Description>Bad <p>output</p></Description>
              <Observed_Examples><Observed_Example><Reference>CVE-1-1</Reference>
              <Description>A page echoes input.</Description></Observed_Example></Observed_Examples>
            </Weakness>
            <Weakness ID="71" Name="Old" Status="Deprecated"/></Weaknesses>
            <Categories><Category ID="1409" Name="Injection" Status="Draft">
              <Summary>About injection.</Summary><Relationships>{member}</Relationships>
            </Category></Categories></Weakness_Catalog>"#
        )
    }

    const MEMBER: &str = r#"<Has_Member CWE_ID="79" View_ID="1400"/>"#;

    #[test]
    fn a_small_catalogue_is_read() {
        let catalogue = Catalogue::parse(&document(VERSION, MEMBER)).unwrap();
        let [weakness] = catalogue.weaknesses.as_slice() else {
            panic!("the deprecated weakness counts")
        };
        assert_eq!(weakness.label(), "CWE-79: XSS");
        assert_eq!(weakness.description, "Bad output");
        assert_eq!(weakness.category, 1409);
        assert_eq!(weakness.reports[0].reference, "CVE-1-1");
        assert_eq!(
            catalogue.groupings[0].sections[0].paragraphs,
            ["About injection."]
        );
    }

    #[test]
    fn another_release_and_an_unassigned_weakness_are_refused() {
        let refused = Catalogue::parse(&document("4.13", MEMBER));
        assert!(matches!(refused, Err(CatalogueError::Version { .. })));
        let refused = Catalogue::parse(&document(VERSION, ""));
        assert!(matches!(
            refused,
            Err(CatalogueError::Partition { cwe: 79, found: 0 })
        ));
    }
}
