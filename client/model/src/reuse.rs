//! What the passes of a backend keep with a model from one call to the next, such as buffers. The
//! model carries it without knowing what it is, and it is freed with the last clone of the model.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// One value of a type that the passes choose, made when it is first asked for. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reuse(Arc<OnceLock<Arc<dyn Any + Send + Sync>>>);

impl Reuse {
    /// The value. A backend asks for one type only; another type gets a value that is not kept.
    pub(crate) fn get<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let kept = self.0.get_or_init(|| Arc::new(T::default()));
        kept.clone().downcast().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn clones_share_one_value_of_the_first_type() {
        let reuse = Reuse::default();
        *reuse.get::<Mutex<u32>>().lock().unwrap() = 7;
        assert_eq!(*reuse.clone().get::<Mutex<u32>>().lock().unwrap(), 7);
        assert_eq!(*reuse.get::<String>(), "");
    }
}
