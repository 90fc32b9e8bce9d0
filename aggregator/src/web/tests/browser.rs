//! How a browser shows the page, where there is a Chromium: nothing is wider than the window, no text is
//! cut, dark is not light, the policy forbids nothing that the page needs, and nothing else is asked for.
//!
//! `FEDLORA_CHROMIUM` names the program; `FEDLORA_PAGE_TEST=required`, as CI sets it, makes a missing one
//! a failure. `FEDLORA_PAGE_OUT` keeps pages and pictures in a folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::*;
use crate::test_operator::{FINISHED, HONEST, LIVE, Operator, Words};

const PROGRAMS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
];
/// Widths of windows, in pixels: a telephone, a tablet, a notebook.
const WIDTHS: [u32; 3] = [390, 768, 1280];

/// Long words in all places that others write.
const LONG: Words = Words {
    federation: "Consortium-of-all-cardiological-university-hospitals-of-the-No.",
    base: "an-organisation-with-a-long-name/a-model-with-a-name-that-is-longer-than-any-window-is-wide",
    problem: "Pneumonoultramicroscopicsilicovolcanoconiosis-Pneumonoultramicroscopicsilicovolcanoconiosis",
    release: "0.1.0-a-release-with-a-long-name-that-nobody-would-give",
    reason: "no reason that is short enough was found, and so this one goes on for a good while longer",
};

/// Looks for what is too wide or cut; runs in a copy of the page.
const PROBE: &str = r#"<script>
const found = [];
const wide = document.documentElement.scrollWidth;
if (wide > innerWidth) found.push(`the page is ${wide} wide`);
const shown = e => e.checkVisibility() && e.getClientRects().length > 0;
for (const e of document.querySelectorAll('body *')) {
  if (!shown(e) || e.matches('.skip, thead, thead *')) continue;
  const box = e.getBoundingClientRect();
  if (box.right > innerWidth + 1 || box.left < -1)
    found.push(`${e.tagName}.${e.getAttribute('class')} reaches from ${box.left} to ${box.right}`);
  if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && getComputedStyle(e).display !== 'inline')
    found.push(`${e.tagName}.${e.getAttribute('class')} is cut: ${e.textContent.slice(0, 40)}`);
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
    if (a.height < 9) found.push(`'${text}' is ${a.height} high`);
    for (const [other, b] of boxes.slice(i + 1)) {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 3) found.push(`'${text}' covers '${other}'`);
    }
  });
}
for (const cell of document.querySelectorAll('td[data-label="Stage"], td[data-label="Rounds"]')) {
  const range = document.createRange();
  range.selectNodeContents(cell);
  if (shown(cell) && range.getClientRects().length > 1) found.push(`'${cell.textContent}' is broken`);
}
const unnamed = [...document.querySelectorAll('table')].filter(e => !e.caption).length;
if (unnamed) found.push(`${unnamed} tables have no caption`);
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
        let profile = self.folder.join("profile");
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
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!(
                "--blink-settings=preferredColorScheme={}",
                u8::from(!dark)
            ))
            .arg(format!("--window-size={width},3600"))
            .args(arguments)
            .output()
            .expect("Chromium starts");
        assert!(output.status.success(), "{output:?}");
        output
    }

    /// A picture of a served page, which must load without a word.
    fn picture(&self, name: &str, url: &str, width: u32, dark: bool) -> Vec<u8> {
        let scheme = if dark { "dark" } else { "light" };
        let picture = self.folder.join(format!("{name}-{width}-{scheme}.png"));
        let shot = format!("--screenshot={}", picture.display());
        let output = self.run(width, dark, &[shot, url.to_owned()]);
        // A breach of the policy is a line of the console.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("CONSOLE"), "{said}");
        std::fs::read(picture).expect("a picture")
    }

    /// What the probe finds in a copy of the page, which has no policy.
    fn probe(&self, name: &str, text: &str, width: u32) -> Value {
        assert!(!text.contains("<script"), "the page has no script");
        let copy = text.replace("</body>", &format!("{PROBE}</body>"));
        let path = self.folder.join(format!("{name}.html"));
        std::fs::write(&path, copy).expect("a copy");
        let url = format!("file://{}", path.display());
        let output = self.run(width, false, &["--dump-dom".into(), url]);
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

#[test]
fn a_browser_shows_the_page_well() {
    let scratch = tempfile::tempdir().expect("a folder");
    let kept = std::env::var_os("FEDLORA_PAGE_OUT").map(PathBuf::from);
    let folder = kept.as_deref().unwrap_or(scratch.path());
    let Some(browser) = Browser::find(folder) else {
        eprintln!("skipped: there is no Chromium on this machine");
        return;
    };
    let one = Operator::with_runs(&scratch.path().join("one"), &HONEST);
    let long = Operator::with_runs(&scratch.path().join("long"), &LONG);
    let idle = Operator::new(&scratch.path().join("idle"), "Oncology", &[]);
    let shown = vec![one.shown.clone(), long.shown.clone(), idle.shown.clone()];
    let own = "127.0.0.1:0".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let server = runtime
        .block_on(HttpServer::bind(own))
        .expect("a free port");
    let address = server.address();
    let served = Arc::new(site(shown));
    let answering = Arc::clone(&served);
    runtime.spawn(server.serve(move |head| answering.answer(head)));
    for (name, path) in [
        ("overview", "/?still".to_owned()),
        ("federation", "/federation/1?still".to_owned()),
        ("long", "/federation/2?still".to_owned()),
        ("idle", "/federation/3".to_owned()),
        ("run", format!("/federation/1/run/{FINISHED}")),
        ("long-run", format!("/federation/2/run/{LIVE}?still")),
    ] {
        let text = ask(&served, &path);
        for width in WIDTHS {
            let found = browser.probe(name, &text, width);
            assert_eq!(found["width"], width, "{name}");
            assert_eq!(found["found"], Value::Array(vec![]), "{name} at {width}");
            if name == "run" {
                assert!(found["texts"].as_u64() > Some(10), "{name}: {found}");
            }
        }
        for width in [390, 1280] {
            let url = format!("http://{address}{path}");
            let light = browser.picture(name, &url, width, false);
            let dark = browser.picture(name, &url, width, true);
            assert!(light != dark, "{name} at {width}: dark is light");
        }
    }
}

#[test]
fn the_probe_finds_what_is_too_wide_and_cut() {
    let scratch = tempfile::tempdir().expect("a folder");
    let Some(browser) = Browser::find(scratch.path()) else {
        eprintln!("skipped: there is no Chromium on this machine");
        return;
    };
    let operator = Operator::new(&scratch.path().join("operator"), "test", &[]);
    let page = ask(&site(vec![operator.shown.clone()]), "/").replace(
        "<footer>",
        "<main><svg viewBox=\"0 0 300 50\" width=\"300\" height=\"50\"><text x=\"-20\" y=\"20\">cut</text>\
         <text x=\"-18\" y=\"21\">on it</text></svg><table><tr><td>a</td></tr></table>\
         <div class=\"kind\">a-word-that-is-far-wider-than-any-telephone-and-has-no-place-to-break-it-in\
         </div></main><footer>",
    );
    let page = page.replace(
        ".kind {",
        ".kind { overflow: hidden; white-space: nowrap; }\n.kind {",
    );
    let found = browser.probe("broken", &page, 390)["found"].to_string();
    for sign in [
        "DIV.kind is cut",
        "'cut' is clipped",
        "'cut' covers 'on it'",
        "no caption",
    ] {
        assert!(found.contains(sign), "{sign}: {found}");
    }
}
