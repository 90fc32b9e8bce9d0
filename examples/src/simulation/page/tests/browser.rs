//! How a browser shows the page, where there is a Chromium: nothing is wider than a telephone,
//! nothing is clipped or covers other text, dark is not light, nothing is asked of the network.
//!
//! `FEDLORA_CHROMIUM` names the program; `FEDLORA_PAGE_TEST=required`, as CI sets it, makes a
//! missing one a failure. `FEDLORA_PAGE_OUT` keeps pages and pictures in a folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::document;
use crate::simulation::page::{comparison, page};
use crate::simulation::report::Document;

const PROGRAMS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
];
/// Widths of windows, in pixels: a telephone, a tablet, a notebook.
const WIDTHS: [u32; 3] = [390, 768, 1280];

/// Looks for what is too wide, clipped, or in the way of other text; runs in a copy of the page.
const PROBE: &str = r#"<script>
const found = [];
const wide = document.documentElement.scrollWidth;
if (wide > innerWidth) found.push(`the page is ${wide} wide`);
const shown = e => e.checkVisibility() && e.getClientRects().length > 0;
for (const e of document.querySelectorAll('main *')) {
  if (!shown(e) || e.closest('.scroll')) continue;
  const box = e.getBoundingClientRect();
  if (box.right > innerWidth + 1 || box.left < -1)
    found.push(`${e.tagName}.${e.getAttribute('class')} reaches from ${box.left} to ${box.right}`);
}
let texts = 0;
for (const svg of document.querySelectorAll('svg')) {
  if (!shown(svg)) continue;
  const frame = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
  texts += boxes.length;
  boxes.forEach(([text, a], i) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1)
      found.push(`'${text}' is clipped`);
    if (a.height < 11) found.push(`'${text}' is ${a.height} high`);
    for (const [other, b] of boxes.slice(i + 1)) {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 3) found.push(`'${text}' covers '${other}'`);
    }
  });
}
for (const list of document.querySelectorAll('.ticks')) {
  const boxes = [...list.children].map(e => e.getBoundingClientRect());
  boxes.slice(1).forEach((b, i) => { if (b.left < boxes[i].right) found.push('ticks cover each other'); });
}
const result = document.createElement('pre');
result.id = 'probe';
result.textContent = JSON.stringify({ width: innerWidth, texts, found });
document.body.append(result);
</script>"#;

struct Browser {
    program: PathBuf,
    folder: PathBuf,
}

impl Browser {
    /// A Chromium on this machine.
    fn find(folder: &Path) -> Option<Self> {
        let named = std::env::var_os("FEDLORA_CHROMIUM").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path)
            .flat_map(|folder| PROGRAMS.map(|name| folder.join(name)))
            .find(|program| program.is_file());
        let program = named.or(on_path);
        let required = std::env::var_os("FEDLORA_PAGE_TEST").is_some_and(|v| v == "required");
        assert!(program.is_some() || !required, "there is no Chromium");
        Some(Self {
            program: program?,
            folder: folder.to_owned(),
        })
    }

    fn run(&self, width: u32, dark: bool, arguments: &[String]) -> Output {
        let scheme = u8::from(!dark);
        let output = Command::new(&self.program)
            // No sandbox: root in a container has none, and the page is our own.
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .args([
                "--enable-logging=stderr",
                "--no-first-run",
                "--disable-extensions",
            ])
            .arg(format!(
                "--user-data-dir={}",
                self.folder.join("profile").display()
            ))
            .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
            .arg(format!("--window-size={width},4200"))
            .args(arguments)
            .output()
            .expect("Chromium starts");
        assert!(output.status.success(), "{output:?}");
        output
    }

    /// A picture of the page, which must load without a word.
    fn picture(&self, page: &Path, width: u32, dark: bool) -> Vec<u8> {
        let scheme = if dark { "dark" } else { "light" };
        let stem = page.file_stem().expect("a name").display();
        let picture = self.folder.join(format!("{stem}-{width}-{scheme}.png"));
        let net = self.folder.join("net.json");
        let output = self.run(
            width,
            dark,
            &[
                format!("--screenshot={}", picture.display()),
                format!("--log-net-log={}", net.display()),
                format!("file://{}", page.display()),
            ],
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("CONSOLE"), "{said}");
        let net = std::fs::read_to_string(net).expect("a log of the network");
        assert!(net.contains("\"constants\""), "not a log of the network");
        for line in net.lines().filter(|line| line.contains("\"url\":\"http")) {
            // The browser may ask for things of its own, never the page.
            assert!(!line.contains("file://"), "{line}");
        }
        std::fs::read(picture).expect("a picture")
    }

    /// What the probe finds in a copy of the page.
    fn probe(&self, text: &str, width: u32) -> Value {
        let policy = "http-equiv=\"Content-Security-Policy\"";
        assert!(text.contains(policy));
        let copy = text.replace(policy, "name=\"none\"");
        let copy = copy.replace("</body>", &format!("{PROBE}</body>"));
        let path = self.folder.join("probe.html");
        std::fs::write(&path, copy).expect("a copy");
        let output = self.run(
            width,
            false,
            &["--dump-dom".into(), format!("file://{}", path.display())],
        );
        let dom = String::from_utf8(output.stdout).expect("UTF-8");
        let found = dom
            .split("<pre id=\"probe\">")
            .nth(1)
            .expect("the probe ran");
        let found = found.split("</pre>").next().expect("an end");
        let found = found
            .replace("&amp;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">");
        serde_json::from_str(&found).expect("JSON")
    }
}

fn pages() -> [(&'static str, String); 5] {
    let mut long = document(13, 2, true);
    let name = "a-member-with-a-name-that-is-as-long-as-the-protocol-lets-it-be";
    let old = std::mem::replace(&mut long.members[0].name, name.into());
    for scores in [&mut long.eval.base, &mut long.eval.federated] {
        let value = scores.by_member.remove(&old).expect("a score");
        scores.by_member.insert(name.into(), value);
    }
    let compared: Vec<Document> = ["adapter.factors=both", "adapter.factors=freeze-a"]
        .into_iter()
        .flat_map(|label| [7, 8].map(|seed| (label, seed)))
        .map(|(label, seed)| Document {
            label: Some(label.into()),
            seed,
            ..document(6, 3 + label.len() as u32 % 3, seed == 7)
        })
        .collect();
    [
        ("six", page(&document(6, 4, true))),
        ("hundred", page(&document(100, 40, true))),
        ("bare", page(&document(3, 1, false))),
        ("long", page(&long)),
        ("compared", comparison(&compared)),
    ]
}

#[test]
fn a_browser_shows_the_page_well() {
    let scratch = tempfile::tempdir().expect("a folder");
    let kept = std::env::var_os("FEDLORA_PAGE_OUT").map(PathBuf::from);
    let folder = kept.as_deref().unwrap_or(scratch.path());
    let Some(browser) = Browser::find(folder) else {
        eprintln!("skipped: there is no Chromium on this machine");
        return;
    };
    for (name, text) in pages() {
        let path = folder.join(format!("{name}.html"));
        std::fs::write(&path, &text).expect("a page");
        for width in WIDTHS {
            let found = browser.probe(&text, width);
            assert_eq!(found["width"], width, "{name}");
            assert!(found["texts"].as_u64() > Some(10), "{name}: {found}");
            assert_eq!(found["found"], Value::Array(vec![]), "{name} at {width}");
        }
        if name == "six" || name == "hundred" {
            for width in [390, 1280] {
                let light = browser.picture(&path, width, false);
                let dark = browser.picture(&path, width, true);
                assert!(light != dark, "{name} at {width}: dark is light");
            }
        }
    }
}

#[test]
fn the_probe_finds_what_is_too_wide_clipped_and_covered() {
    let scratch = tempfile::tempdir().expect("a folder");
    let Some(browser) = Browser::find(scratch.path()) else {
        eprintln!("skipped: there is no Chromium on this machine");
        return;
    };
    let text = page(&document(3, 1, false)).replace(
        "<footer>",
        "<p style=\"width:600px\">wide</p><svg viewBox=\"0 0 300 50\"><text x=\"-20\" y=\"20\">cut\
         </text><text x=\"-18\" y=\"21\">on it</text></svg><footer>",
    );
    let found = browser.probe(&text, 390)["found"].to_string();
    for sign in ["the page is", "'cut' is clipped", "'cut' covers 'on it'"] {
        assert!(found.contains(sign), "{sign}: {found}");
    }
}
