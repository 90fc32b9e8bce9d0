//! PEFT's `rank_pattern` and `alpha_pattern`: ranks and scales that differ by module. Ours are the same
//! for all, so such an adapter is read as one of its largest rank that computes the same: what a narrower
//! pair lacks is zero, and B takes up what its scale differs by.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::{Factor, LoraConfig, ProjectionTensor};
use super::peft::PeftError;
use super::tensors::FloatTensor;

/// What the patterns of an adapter say.
#[derive(Debug, Clone)]
pub(super) struct Patterns {
    /// Whether ranks differ: the tensors say which is whose.
    ranks: bool,
    /// The names or paths of modules that have another alpha than the rest.
    alphas: Vec<(String, f64)>,
}

impl Patterns {
    /// The patterns of a configuration; none where it has none.
    ///
    /// # Errors
    /// The key of one that cannot be read, and what is expected.
    pub(super) fn read(
        object: &Map<String, Value>,
    ) -> Result<Option<Self>, (&'static str, &'static str)> {
        let of = |key| object.get(key).and_then(Value::as_object);
        let ranks = of("rank_pattern").is_some_and(|ranks| !ranks.is_empty());
        let mut alphas = Vec::new();
        for (module, alpha) in of("alpha_pattern").into_iter().flatten() {
            let alpha = alpha
                .as_f64()
                .filter(|alpha| alpha.is_finite() && *alpha > 0.0);
            let alpha = alpha.ok_or(("alpha_pattern", "numbers above 0"))?;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            if !module.chars().all(plain) {
                let expected = "names or paths of modules: regular expressions are not supported";
                return Err(("alpha_pattern", expected));
            }
            alphas.push((module.clone(), alpha));
        }
        Ok((ranks || !alphas.is_empty()).then_some(Self { ranks, alphas }))
    }

    /// Widens all pairs to the largest rank, and gives the configuration of that. `path` is that of
    /// `config`'s file.
    ///
    /// # Errors
    /// [`PeftError`] for a module that two patterns give another alpha, or a rank above 256. Tensors that
    /// are no pair's are left for others to refuse.
    pub(super) fn apply(
        &self,
        path: &Path,
        config: LoraConfig,
        tensors: &mut BTreeMap<String, FloatTensor>,
    ) -> Result<LoraConfig, PeftError> {
        let mut pairs = Vec::new();
        for (name, tensor) in tensors.iter() {
            let place = ProjectionTensor::parse(name).filter(|place| place.factor == Factor::A);
            if let (Some(place), &[rank, _]) = (place, &tensor.shape[..]) {
                pairs.push((place, rank));
            }
        }
        let widest = match self.ranks {
            true => pairs.iter().map(|(_, rank)| *rank).max(),
            false => None,
        };
        let refuse = |source| PeftError::Config {
            path: path.to_owned(),
            source,
        };
        let target = match widest {
            Some(rank) if rank != config.rank() => {
                config.clone().with_rank(rank).map_err(refuse)?
            }
            _ => config.clone(),
        };
        for (place, rank) in pairs {
            let same = LoraConfig::new(
                rank,
                self.alpha(path, &place)?.unwrap_or(config.alpha()),
                config.dropout(),
                [place.target],
            );
            let same = same.map_err(refuse)?;
            let own = match config.is_rank_stabilised() {
                true => same.rank_stabilised(),
                false => same,
            };
            let more = own.scale() / target.scale();
            let of = |factor| ProjectionTensor { factor, ..place }.name();
            if let Some(a) = tensors.get_mut(&of(Factor::A)) {
                add_rows(a, target.rank());
            }
            if let Some(b) = tensors.get_mut(&of(Factor::B)) {
                if rank != config.rank() || own.alpha() != config.alpha() {
                    for value in &mut b.values {
                        *value = (f64::from(*value) * more) as f32;
                    }
                }
                add_columns(b, rank, target.rank());
            }
        }
        Ok(target)
    }

    /// The alpha that the patterns give a module.
    fn alpha(&self, path: &Path, place: &ProjectionTensor) -> Result<Option<f64>, PeftError> {
        let module = format!("model.layers.{}.{}", place.layer, place.target.path());
        let covers = |pattern: &str| {
            let before = module.strip_suffix(pattern);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let mut found = self.alphas.iter().filter(|(pattern, _)| covers(pattern));
        let Some((_, alpha)) = found.next() else {
            return Ok(None);
        };
        match found.find(|(_, other)| other != alpha) {
            // PEFT takes the first in its file's order, which no reader of JSON has to keep.
            Some((pattern, _)) => Err(PeftError::Setting {
                path: path.to_owned(),
                key: "alpha_pattern".to_owned(),
                got: format!("two alphas for {module}, the second by '{pattern}'"),
                expected: "one",
            }),
            None => Ok(Some(*alpha)),
        }
    }

    /// Why a configuration without tensors cannot have patterns.
    pub(super) fn refused(&self, path: &Path) -> PeftError {
        PeftError::Setting {
            path: path.to_owned(),
            key: if self.ranks {
                "rank_pattern"
            } else {
                "alpha_pattern"
            }
            .to_owned(),
            got: "set".to_owned(),
            expected: "nothing, where no tensors say what it covers",
        }
    }
}

/// Rows of zeros below `[rank, in]`.
fn add_rows(a: &mut FloatTensor, rank: usize) {
    if let [rows, columns] = &mut a.shape[..] {
        *rows = (*rows).max(rank);
        a.values.resize(*rows * *columns, 0.0);
    }
}

/// Columns of zeros to the right of `[out, rank]`.
fn add_columns(b: &mut FloatTensor, rank: usize, wider: usize) {
    let [_, columns] = &mut b.shape[..] else {
        return;
    };
    if *columns != rank || rank >= wider {
        return;
    }
    *columns = wider;
    let rows = b.values.chunks(rank);
    let widened = rows.flat_map(|row| {
        let zeros = std::iter::repeat_n(0.0, wider - rank);
        row.iter().copied().chain(zeros)
    });
    b.values = widened.collect();
}
