//! The simulator: what its document promises, drops at each point, data of the user's own.

use std::fs;

use fedlora_tests::simulated::{documents, few_records, names, records, rounds, simulate, six};
use fedlora_tests::{Finished, INSTITUTIONS, program, repository};
use serde_json::{Value, json};

#[test]
fn the_document_holds_what_it_promises() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &six());
    let (finished, _folder) = simulate(&[
        "--data",
        &data,
        "--split-by",
        "institution",
        "--rounds",
        "2",
        "--steps",
        "2",
        "--verify-sum",
        "--baselines",
    ]);
    let finished = finished.done();
    assert_eq!(finished.stderr, "", "--quiet is not quiet");
    let document = finished.document();
    let members = document["members"].as_array().expect("members");
    assert_eq!(members.len(), 6);
    for member in members {
        assert!(member["name"].is_string());
        assert!(member["training_examples"].as_u64() > Some(0));
        assert!(member["held_out_examples"].as_u64() > Some(0));
        assert!(member["validation_examples"].as_u64() > Some(0));
        // What it keeps, and what that is worth, follow from the scores.
        let score = |way: &str| {
            let scores = &document["eval"][way]["by_member"];
            scores[member["name"].as_str().expect("a name")].as_f64()
        };
        let (own, alone) = (score("personalised"), score("local_only"));
        let gain = own
            .zip(alone)
            .map(|(own, alone)| 100.0 * (alone - own) / alone);
        assert_eq!(member["gain_percent"].as_f64(), gain);
        match member["chosen"].as_str().expect("a choice") {
            "global" => assert_eq!(own, score("federated")),
            "local" => assert_eq!(own, alone),
            "personal" => assert_ne!(own, score("federated")),
            other => panic!("chosen: {other}"),
        }
    }
    assert_eq!(rounds(&document).len(), 2);
    for (index, round) in rounds(&document).iter().enumerate() {
        assert_eq!(round["round"], index + 1);
        assert_eq!(round["attempts"], 1);
        for key in ["train_loss", "eval_loss"] {
            assert!(round[key].as_f64() > Some(0.0), "{key}: {round}");
        }
        for key in ["bytes_up", "bytes_down", "total_weight"] {
            assert!(round[key].as_u64() > Some(0), "{key}: {round}");
        }
        assert_eq!(round["sum_exact"], true);
        assert!(round["seconds"]["total"].as_f64() > Some(0.0), "{round}");
    }
    // Without --drop the last member is cut off in round 2.
    assert_eq!(rounds(&document)[0]["dropped"], json!([]));
    assert_eq!(rounds(&document)[1]["dropped"], json!(["web-soc"]));
    assert_eq!(names(&rounds(&document)[1]["survivors"]), INSTITUTIONS);
    for way in [
        "base",
        "local_only",
        "federated",
        "personalised",
        "centralised",
        "centralised_then_local",
    ] {
        let scores = &document["eval"][way];
        assert!(scores["pooled"].as_f64() > Some(1.0), "{way}: {scores}");
        let by_member = scores["by_member"].as_object().expect("figures by member");
        assert_eq!(by_member.len(), 6, "{way}");
    }
    let adapter = document["adapter_dir"].as_str().expect("a folder");
    fedlora_adapter::peft::load(adapter.as_ref()).expect("the adapter loads");
    assert!(document["wall_seconds"].as_f64() > Some(0.0));
}

#[test]
fn members_drop_at_each_point() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &six());
    let (finished, _folder) = simulate(&[
        "--data",
        &data,
        "--split-by",
        "institution",
        "--rounds",
        "3",
        "--steps",
        "1",
        "--members",
        "5",
        "--verify-sum",
        "--drop",
        "1@1:keys",
        "--drop",
        "2@2:upload",
        "--drop",
        "3@3:confirm",
    ]);
    let document = finished.done().document();
    let members = document["members"].as_array().expect("members");
    let name = |index: usize| members[index]["name"].as_str().expect("a name");
    let rounds = rounds(&document);
    assert_eq!(names(&rounds[0]["dropped"]), [name(0)]);
    assert_eq!(names(&rounds[1]["dropped"]), [name(1)]);
    // Its update had arrived: it is in the sum although it signed nothing.
    assert_eq!(rounds[2]["dropped"], json!([]));
    assert!(names(&rounds[2]["survivors"]).contains(&name(2)));
    for round in rounds {
        assert_eq!(round["sum_exact"], true, "{round}");
    }
    let took_part: Vec<_> = members.iter().map(|m| m["rounds"].as_u64()).collect();
    assert_eq!(took_part[0], Some(2), "{document}");
    assert_eq!(took_part[1], Some(2), "{document}");
    assert_eq!(took_part[3..], [Some(3), Some(3)], "{document}");
}

#[test]
fn records_of_the_users_own_are_split_by_a_field() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..3]);
    let data = data.as_str();
    let split = ["--data", data, "--rounds", "1", "--steps", "1"];
    let with = |field| [&split[..], &["--split-by", field]].concat();

    let (finished, _out) = simulate(&with("institution"));
    let document = finished.done().document();
    let members: Vec<_> = document["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| member["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(members, INSTITUTIONS[..3]);
    assert_eq!(names(&rounds(&document)[0]["survivors"]), members);

    let (finished, _out) = simulate(&with("hospital"));
    finished.failed(7, &["hospital", "all.jsonl"]);
    let (finished, _out) = simulate(&split);
    finished.failed(2, &["--split-by"]);
}

/// Labels are those of several training records; all other responses are free text.
#[test]
fn labels_and_free_text_are_scored_beside_the_perplexity() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..3]);
    let common = [
        "--data",
        &data,
        "--split-by",
        "institution",
        "--drop",
        "none",
    ];
    let short = ["--rounds", "1", "--steps", "1", "--responses", "1"];
    let with = |task| [&common[..], &short, &["--task", task]].concat();

    let (finished, out) = simulate(&with("classify,generate"));
    let document = finished.done().document();
    let held_out = document["members"].as_array().expect("members").iter();
    let held_out: u64 = held_out
        .map(|one| one["held_out_examples"].as_u64().expect("a count"))
        .sum();
    let (labels, text) = (&document["classification"], &document["generation"]);
    let count = |of: &Value, field: &str| of[field].as_u64().expect("a count");
    let records = count(labels, "records");
    assert_eq!(records + count(labels, "other_records"), held_out);
    assert_eq!(count(text, "label_records"), records);
    assert!(records > 0 && count(labels, "labels") > 1, "{labels}");
    for way in ["base", "local_only", "federated", "personalised"] {
        let scores = &labels["scores"][way];
        assert_eq!(count(&scores["pooled"], "records"), records, "{way}");
        let each = scores["by_member"].as_object().expect("members");
        let each = each.values().map(|one| count(one, "records"));
        assert_eq!(each.sum::<u64>(), records, "{way}");
        for score in ["accuracy", "macro_f1"] {
            let share = scores["pooled"][score].as_f64().expect("a share");
            assert!((0.0..=1.0).contains(&share), "{way}: {share}");
        }
        let rouge = text["rouge_l"][way]["pooled"].as_f64().expect("a share");
        assert!((0.0..=1.0).contains(&rouge), "{way}: {rouge}");
    }
    assert_eq!(labels["scores"]["centralised"], Value::Null);
    for baseline in ["tf_idf_alone", "tf_idf_centralised"] {
        assert_eq!(count(&labels[baseline]["pooled"], "records"), records);
    }
    let reference = fs::read_to_string(repository().join("docs/reference/json.md"));
    let reference = reference.expect("the reference");
    for field in [labels, text]
        .into_iter()
        .flat_map(|one| one.as_object().expect("fields"))
    {
        assert!(reference.contains(&format!("`{}`", field.0)), "{}", field.0);
    }
    let page = fs::read_to_string(out.path().join("out/report.html")).expect("the page");
    assert!(page.contains("<h2>Labels</h2>") && page.contains("<h2>Free text</h2>"));
}

/// Nine members in three groups, over real connections: each group's sum is taken by itself.
#[test]
fn a_robust_plan_sums_by_group() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = records(folder.path(), &INSTITUTIONS[..3], 3);
    let arguments = [
        "--data",
        &data,
        "--split-by",
        "institution",
        "--rounds",
        "2",
        "--steps",
        "1",
        "--verify-sum",
        "--robust",
        "median",
    ];
    let document = simulate(&arguments).0.done().document();
    let robust = &document["robust"];
    assert_eq!(
        (&robust["rule"], &robust["groups"]),
        (&json!("median"), &json!(3))
    );
    for round in rounds(&document) {
        assert_eq!(names(&round["survivors"]).len(), 9);
        assert_eq!(round["sum_exact"], true);
        assert_eq!(round["attempts"], 1);
    }
}

/// Five members at a rate that changes nothing, and at one that harms after its warm-up: each run
/// ends once its patience is over, and the result is what the told losses choose.
#[test]
fn a_run_that_no_longer_improves_ends_early() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS);
    let arguments = [
        "--data",
        &data,
        "--split-by",
        "institution",
        "--rounds",
        "5",
        "--steps",
        "1",
        "--drop",
        "none",
        "--sweep",
        "stopping.patience=1",
        "--sweep",
        "rollback.votes=1",
        "--sweep",
        "training.learning_rate=0.0000001,0.5",
    ];
    let (finished, _out) = simulate(&arguments);
    let runs = documents(finished);
    let told: Vec<_> = runs
        .iter()
        .map(|run| (rounds(run).len(), &run["stopped_early"], &run["best_round"]))
        .collect();
    let early = json!(true);
    assert_eq!(told, [(2, &early, &json!(2)), (3, &early, &json!(1))]);
    let federated = &runs[1]["eval"]["federated"];
    let curve = runs[1]["curves"].as_array().expect("a curve");
    let pooled = |scores: &Value| scores["pooled"].as_f64().expect("a perplexity");
    assert_eq!(curve[0]["held_out"], *federated);
    assert!(pooled(&curve[2]["held_out"]) > pooled(federated));
}

/// Five members at a rate that harms after its warm-up, in the second round: in the third most of
/// them vote. The step is taken back, unless the plan says that votes do not count.
#[test]
fn a_step_that_harms_most_members_is_taken_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS);
    let arguments = [
        "--data",
        &data,
        "--split-by",
        "institution",
        "--rounds",
        "3",
        "--steps",
        "1",
        "--lr",
        "0.15",
        "--drop",
        "none",
        "--verify-sum",
        "--sweep",
        "rollback.votes=0.5,1",
    ];
    let (finished, _out) = simulate(&arguments);
    let runs = documents(finished);
    let back = |run: usize| rounds(&runs[run]).iter().map(|round| &round["taken_back"]);
    assert_eq!(
        back(0).collect::<Vec<_>>(),
        [&json!(false), &json!(false), &json!(true)]
    );
    assert!(back(1).all(|back| *back == json!(false)));
    for run in &runs {
        let votes = rounds(run).iter().map(|round| round["votes"].as_u64());
        let votes: Vec<_> = votes.map(|votes| votes.expect("five members")).collect();
        assert_eq!(votes[..2], [0, 0], "{votes:?}");
        assert!(votes[2] > 2, "{votes:?}");
        assert!(rounds(run).iter().all(|round| round["sum_exact"] == true));
    }
    let last = |run: &Value| {
        let curve = run["curves"].as_array().expect("a curve");
        curve[2]["held_out"]["pooled"]
            .as_f64()
            .expect("a perplexity")
    };
    assert!(last(&runs[0]) < last(&runs[1]));
}

/// mu pulls from the second step of a round on.
#[test]
fn a_proximal_term_changes_what_members_train() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..3]);
    let arguments = [
        "--data",
        &data,
        "--split-by",
        "institution",
        "--rounds",
        "1",
        "--steps",
        "2",
        "--sweep",
        "training.proximal=0,1.0",
    ];
    let (finished, _out) = simulate(&arguments);
    let runs = documents(finished);
    let mu = |run: &Value| run["plan"]["training"]["proximal"].as_f64();
    assert_eq!((mu(&runs[0]), mu(&runs[1])), (Some(0.0), Some(1.0)));
    assert_ne!(runs[0]["eval"]["federated"], runs[1]["eval"]["federated"]);
}

#[test]
fn a_comparison_gives_the_same_documents_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..3]);
    let plan = |name: &str, rest: &str| {
        let path = folder.path().join(name);
        let text = format!(
            "rounds = 1\nmembers = 3\n{rest}[adapter.lora]\nrank = 2\nalpha = 4.0\n\
             targets = [\"q\", \"v\"]\n[training]\nsteps = 1\nbatch_size = 1\n\
             learning_rate = 0.001\n[aggregation]\ndropping = 0.0\n"
        );
        fs::write(&path, text).expect("a plan can be written");
        path.to_str().expect("a plain path").to_owned()
    };
    let (first, second) = (plan("first.toml", ""), plan("second.toml", "seed = 99\n"));
    let compare = || {
        let out = tempfile::tempdir().expect("a temporary folder");
        let path = out.path().join("out");
        let mut command = program("fedlora-sim");
        command
            .args([
                "--data",
                &data,
                "--partition",
                "dirichlet:0.5",
                "--members",
                "3",
            ])
            .args([
                "--split-by",
                "institution",
                "--seeds",
                "1,2",
                "--drop",
                "none",
            ])
            .args([
                "--compare",
                &first,
                &second,
                "--poison",
                "1:scale:2",
                "--verify-sum",
            ])
            .args(["--no-timings", "--format", "json", "--quiet", "--out"])
            .arg(&path);
        let finished = Finished::of("fedlora-sim", &mut command).done();
        let page = fs::read_to_string(path.join("report.html")).expect("a page");
        assert!(page.contains("first") && page.contains("second"));
        let lines = fs::read_to_string(path.join("report.jsonl")).expect("lines");
        assert_eq!(lines.lines().count(), 4);
        finished
    };
    let (one, other) = (compare(), compare());
    assert_eq!(one.stdout, other.stdout);
    let runs = documents(one);
    let told = |key: &str| runs.iter().map(|run| run[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("label"), ["first", "first", "second", "second"]);
    // Equal seeds for all, whatever a plan says.
    assert_eq!(told("seed"), [1, 2, 1, 2]);
    assert_eq!(runs[0]["eval"], runs[2]["eval"]);
    assert_ne!(runs[0]["eval"], runs[1]["eval"]);
    for run in &runs {
        assert!(run.get("wall_seconds").is_none());
        assert_eq!(rounds(run)[0]["sum_exact"], true);
        assert_eq!(run["poisoned"][0]["how"], "scale:2");
    }
}

#[test]
fn a_sweep_runs_each_value_of_a_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..3]);
    let own = [
        "--data",
        &data,
        "--split-by",
        "institution",
        "--rounds",
        "1",
    ];
    let sweep = |sweep| [&own[..], &["--steps", "1", "--sweep", sweep]].concat();
    let (finished, _out) = simulate(&sweep("adapter.factors=both,freeze-a"));
    let runs = documents(finished);
    let factors: Vec<_> = runs.iter().map(|run| run["factors"].clone()).collect();
    assert_eq!(factors, ["both", "freeze-a"]);
    let (finished, _out) = simulate(&sweep("training.stepz=1,2"));
    finished.failed(3, &["stepz"]);
    let (finished, _out) = simulate(&sweep("training.steps"));
    finished.failed(2, &["KEY=VALUE"]);
}

/// Members take the steps of each optimizer, in rounds of either factor.
#[test]
fn members_take_the_steps_of_each_server_optimizer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..3]);
    let common = [
        "--data",
        &data,
        "--split-by",
        "institution",
        "--steps",
        "1",
        "--drop",
        "none",
        "--factors",
        "alternating",
    ];
    let run = |more: &[&str]| simulate(&[&common, more].concat()).0;
    for (name, rate) in [
        ("fedavgm", "0.5"),
        ("nesterov", "0.7"),
        ("fedadam", "0.01"),
        ("fedyogi", "10.0"),
    ] {
        let server = ["--server-optimizer", name, "--server-rate", rate];
        let momentum = ["--rounds", "4", "--server-momentum", "0.8"];
        let document = run(&[&server[..], &momentum].concat()).done().document();
        assert_eq!(rounds(&document).len(), 4, "{name}");
        for round in rounds(&document) {
            assert_eq!(round["attempts"], 1, "{name}: {round}");
        }
    }
    run(&["--server-rate", "1000"]).failed(3, &["floors.server_step", "1000"]);
}

/// Cores travel in place of factors, whatever the server makes of their mean.
#[test]
fn cores_travel_and_make_an_ordinary_adapter() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..3]);
    let run = |more: &[&str]| {
        let common = [
            "--data",
            &data,
            "--split-by",
            "institution",
            "--rounds",
            "2",
            "--steps",
            "2",
            "--drop",
            "none",
            "--verify-sum",
        ];
        let (finished, _out) = simulate(&[&common, more].concat());
        let document = finished.done().document();
        for round in rounds(&document) {
            assert_eq!(round["attempts"], 1, "{round}");
            assert_eq!(round["sum_exact"], true, "{round}");
        }
        let adapter = document["adapter_dir"].as_str().expect("a folder");
        let adapter = fedlora_adapter::peft::load(adapter.as_ref()).expect("the adapter loads");
        assert!(adapter.values().iter().all(|value| value.is_finite()));
        document
    };
    let bytes = |document: &Value| rounds(document)[0]["bytes_up"].as_u64();
    let core = run(&["--factors", "core", "--lr", "0.05"]);
    let outer = run(&["--factors", "freeze-a"]);
    assert!(bytes(&core) < bytes(&outer).map(|bytes| bytes / 2));
    let pooled = |way: &str| core["eval"][way]["pooled"].as_f64();
    assert!(pooled("federated") < pooled("base"));
    run(&[
        "--factors",
        "core",
        "--server-optimizer",
        "fedadam",
        "--server-rate",
        "0.01",
    ]);
}

/// Members train adapters of their own beside that of the others: another mean comes of it, and
/// another adapter for each of them.
#[test]
fn members_learn_beside_the_rest_of_the_world() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..4]);
    let (finished, _out) = simulate(&[
        "--data",
        &data,
        "--split-by",
        "institution",
        "--rounds",
        "3",
        "--steps",
        "2",
        "--verify-sum",
        "--sweep",
        "personalisation.method=fine-tune,rest-of-world",
    ]);
    let runs = documents(finished);
    let [plain, beside] = &runs[..] else {
        panic!("two runs");
    };
    let methods = runs
        .iter()
        .map(|run| &run["plan"]["personalisation"]["method"]);
    assert_eq!(methods.collect::<Vec<_>>(), ["fine-tune", "rest-of-world"]);
    assert_ne!(plain["eval"]["federated"], beside["eval"]["federated"]);
    assert_ne!(
        plain["eval"]["personalised"],
        beside["eval"]["personalised"]
    );
    assert_eq!(plain["eval"]["local_only"], beside["eval"]["local_only"]);
    for round in rounds(beside) {
        assert_eq!(round["sum_exact"], true, "{round}");
    }
}

#[test]
fn a_newcomer_joins_after_the_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = few_records(folder.path(), &INSTITUTIONS[..4]);
    let newcomer = INSTITUTIONS[1];
    let arguments = |newcomer: &str| {
        let fixed = ["--split-by", "institution", "--rounds", "1", "--steps", "2"];
        let mut all: Vec<String> = fixed.map(str::to_owned).to_vec();
        all.extend(["--data".into(), data.clone()]);
        all.extend(["--newcomer".into(), newcomer.to_owned()]);
        all
    };
    let run = |newcomer: &str| {
        let arguments = arguments(newcomer);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        simulate(&arguments)
    };
    let document = run(&format!("{newcomer}:25")).0.done().document();
    let members = document["members"].as_array().expect("members");
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member["name"] != newcomer));
    assert_eq!(names(&rounds(&document)[0]["survivors"]).len(), 3);
    let [joined] = &document["newcomers"].as_array().expect("newcomers")[..] else {
        panic!("{document}");
    };
    assert_eq!(joined["name"], newcomer);
    let count = |key: &str| joined[key].as_u64().expect("a number");
    assert_eq!(
        count("training_examples") + count("validation_examples"),
        25
    );
    let perplexity = |key: &str| joined[key].as_f64().expect("a perplexity");
    let gain = 100.0 * (1.0 - perplexity("personalised") / perplexity("local_only"));
    assert!((joined["gain_percent"].as_f64().expect("a gain") - gain).abs() < 1e-9);

    run("nobody").0.failed(7, &["nobody", newcomer]);
}
