//! The seam along which the data is split: the catalogue's own categories of view 1400.

/// A member of the embedded federation: its name and the categories that it sees.
#[derive(Debug, Clone, Copy)]
pub struct Institution {
    /// A DNS label, as member names are.
    pub name: &'static str,
    /// What its records are about, for people.
    pub about: &'static str,
    /// Categories of view 1400.
    pub categories: &'static [u32],
}

/// Six members with about the same number of reports each and no weakness in common.
pub const INSTITUTIONS: [Institution; 6] = [
    Institution {
        name: "bank-identity",
        about: "access control: authentication, authorisation, privileges",
        categories: &[1396],
    },
    Institution {
        name: "cloud-storage",
        about: "files, exposed resources, resource control, secure design",
        categories: &[1403, 1404, 1415, 1418],
    },
    Institution {
        name: "device-vendor",
        about: "resource lifecycles, coding practice, error handling, component interaction",
        categories: &[1398, 1405, 1412, 1416],
    },
    Institution {
        name: "hospital-privacy",
        about: "encryption, randomness, authenticity, protection failures, information exposure",
        categories: &[1402, 1411, 1413, 1414, 1417],
    },
    Institution {
        name: "kernel-lab",
        about: "memory safety, calculation, comparison, concurrency, control flow",
        categories: &[1397, 1399, 1401, 1408, 1410],
    },
    Institution {
        name: "web-soc",
        about: "injection, neutralisation, input validation",
        categories: &[1406, 1407, 1409],
    },
];

/// The institution that sees a category's records.
pub fn of_category(category: u32) -> Option<&'static Institution> {
    INSTITUTIONS
        .iter()
        .find(|institution| institution.categories.contains(&category))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::path::Path;

    use fedlora_data::{Content, Dataset, Record};
    use fedlora_protocol::ids::MemberName;

    use super::super::normalised;
    use super::*;

    /// The text of a record that must not occur twice: the report, or the answer.
    fn private_text(record: &Record) -> String {
        let Content::Chat(turns) = record.content() else {
            panic!("{} is not a chat", record.place())
        };
        let [question, answer] = &turns[..] else {
            panic!("{} is not a pair", record.place())
        };
        let text = match record.label("kind") {
            Some("report") => question.content.split_once("\n\n").unwrap().1,
            _ => &answer.content,
        };
        normalised(text)
    }

    #[test]
    fn the_embedded_files_are_readable_small_and_without_a_text_twice() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/data");
        let mut texts = BTreeSet::new();
        let (mut records, mut bytes) = (0, 0);
        for institution in INSTITUTIONS {
            for part in ["train", "heldout"] {
                let path = folder.join(format!("{}.{part}.jsonl", institution.name));
                bytes += std::fs::metadata(&path).unwrap().len();
                let data = Dataset::read(&[path]).unwrap();
                records += data.len();
                texts.extend(data.records().iter().map(private_text));
                let holders = data.group_by("institution").unwrap();
                assert_eq!(holders.into_keys().collect::<Vec<_>>(), [institution.name]);
            }
        }
        assert!(bytes <= 3_000_000, "{bytes} bytes");
        assert_eq!(texts.len(), records);
    }

    #[test]
    fn names_are_member_names_and_categories_are_disjoint() {
        let mut seen = BTreeSet::new();
        for institution in INSTITUTIONS {
            institution.name.parse::<MemberName>().unwrap();
            for category in institution.categories {
                assert!(seen.insert(*category), "{category} is seen twice");
            }
        }
        assert_eq!(seen, (1396..=1418).filter(|c| *c != 1400).collect());
        assert!(of_category(1400).is_none());
    }
}
