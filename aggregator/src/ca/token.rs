//! The authority's key in a PKCS #11 token: it signs there, and never leaves it. Each signature has a
//! session of its own, so a token that was away serves again once it is back.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use fedlora_transport::pki::{RemoteKey, read_key};

use super::TokenError;
use crate::config::Pkcs11Config;

/// The object identifier of P-256 in DER: 1.2.840.10045.3.1.7.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// The bytes of an uncompressed point on P-256.
const POINT: usize = 65;

/// The modules that this process has loaded. Each can be initialised once, and calls on one token wait for
/// each other: logging in is for the whole process.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// By a token's label, the digest of the PIN that it has refused: it is not tried again, since a token locks
/// itself after a few wrong ones.
static REFUSED: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());

/// A key pair in a token.
pub(super) struct TokenKey {
    config: Pkcs11Config,
    public_key: Vec<u8>,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Finds the key in its token.
    ///
    /// # Errors
    /// [`TokenError`] naming the module, the token or the key.
    pub(super) fn find(config: &Pkcs11Config) -> Result<Self, TokenError> {
        let public_key = in_session(config, |session| {
            let key = object(session, config, ObjectClass::PUBLIC_KEY)?;
            let wanted = [AttributeType::EcParams, AttributeType::EcPoint];
            let found = session
                .get_attributes(key, &wanted)
                .map_err(|error| asked(&error))?;
            let (mut curve, mut point) = (None, None);
            for attribute in found {
                match attribute {
                    Attribute::EcParams(bytes) => curve = Some(bytes),
                    Attribute::EcPoint(bytes) => point = Some(bytes),
                    _ => {}
                }
            }
            let point = point.as_deref().and_then(unwrapped);
            match (curve, point) {
                (Some(curve), Some(point)) if curve == P256 => Ok(point.to_vec()),
                _ => Err(TokenError::Curve {
                    key: config.key.clone(),
                }),
            }
        })?;
        Ok(Self {
            config: config.clone(),
            public_key,
        })
    }
}

impl RemoteKey for TokenKey {
    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let hash = digest(&SHA256, message);
        let signed = in_session(&self.config, |session| {
            let key = object(session, &self.config, ObjectClass::PRIVATE_KEY)?;
            let signature = session.sign(&Mechanism::Ecdsa, key, hash.as_ref());
            signature.map_err(|error| asked(&error))
        });
        let signature = signed.map_err(|error| error.to_string())?;
        der_of(&signature).ok_or_else(|| {
            let length = signature.len();
            format!("the token gave a signature of {length} bytes; 64 are expected")
        })
    }
}

/// Opens a session with the token, logged in, for as long as `work` takes.
fn in_session<T>(
    config: &Pkcs11Config,
    work: impl FnOnce(&Session) -> Result<T, TokenError>,
) -> Result<T, TokenError> {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let module = match modules.get(&config.module) {
        Some(module) => module.clone(),
        None => {
            let module = load(&config.module)?;
            modules.insert(config.module.clone(), module.clone());
            module
        }
    };
    let slots = module
        .get_slots_with_token()
        .map_err(|error| asked(&error))?;
    let mut labels = Vec::new();
    for slot in slots {
        let token = module.get_token_info(slot).map_err(|error| asked(&error))?;
        if token.label() != config.token {
            labels.push(token.label().to_owned());
            continue;
        }
        let session = module
            .open_ro_session(slot)
            .map_err(|error| asked(&error))?;
        let pin = read_key(&config.pin_file)?;
        let pin = pin.trim_end_matches(['\r', '\n']);
        let tried = digest(&SHA256, pin.as_bytes());
        let pin = AuthPin::from(pin);
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = refused.entry(config.token.clone()).or_default();
        if refused.as_slice() == tried.as_ref() {
            return Err(TokenError::Pin {
                path: config.pin_file.clone(),
            });
        }
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid,
                _,
            )) => {
                *refused = tried.as_ref().to_vec();
                return Err(TokenError::Pin {
                    path: config.pin_file.clone(),
                });
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                return Err(TokenError::Locked {
                    token: config.token.clone(),
                });
            }
            Err(error) => return Err(asked(&error)),
        }
        let done = work(&session);
        // Whoever uses the module after this logs in by himself.
        let _ = session.logout();
        return done;
    }
    Err(TokenError::NoToken {
        token: config.token.clone(),
        found: labels,
    })
}

fn load(path: &Path) -> Result<Pkcs11, TokenError> {
    let failed = |error: &Error| TokenError::Module {
        path: path.to_owned(),
        reason: brief(error),
    };
    let module = Pkcs11::new(path).map_err(|error| failed(&error))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        Err(error) => Err(failed(&error)),
    }
}

/// The one object of that class with the key's label.
fn object(
    session: &Session,
    config: &Pkcs11Config,
    class: ObjectClass,
) -> Result<ObjectHandle, TokenError> {
    let template = [
        Attribute::Class(class),
        Attribute::KeyType(KeyType::EC),
        Attribute::Label(config.key.as_bytes().to_vec()),
    ];
    let found = session
        .find_objects(&template)
        .map_err(|error| asked(&error))?;
    match found[..] {
        [one] => Ok(one),
        ref others => Err(TokenError::Keys {
            key: config.key.clone(),
            token: config.token.clone(),
            found: others.len(),
        }),
    }
}

fn asked(error: &Error) -> TokenError {
    TokenError::Refused {
        reason: brief(error),
    }
}

/// The code of an error: the crate's own texts are paragraphs of the standard.
fn brief(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{code:?} from {function:?}"),
        other => other.to_string(),
    }
}

/// A point on P-256 as tokens give it, in an OCTET STRING or without.
fn unwrapped(bytes: &[u8]) -> Option<&[u8]> {
    let point = match bytes {
        [0x04, length, point @ ..] if usize::from(*length) == POINT && point.len() == POINT => {
            point
        }
        point => point,
    };
    (point.len() == POINT && point[0] == 0x04).then_some(point)
}

/// A signature in DER, of its two halves of 32 bytes each (RFC 3279, section 2.2.3).
fn der_of(signature: &[u8]) -> Option<Vec<u8>> {
    if signature.len() != 64 {
        return None;
    }
    let (r, s) = signature.split_at(32);
    let body = [integer(r), integer(s)].concat();
    let length = u8::try_from(body.len()).ok()?;
    Some([&[0x30, length], &body[..]].concat())
}

/// An unsigned number as a DER INTEGER: the fewest bytes, whose highest bit is not set.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[zeros.min(bytes.len() - 1)..];
    let pad = digits[0] & 0x80 != 0;
    let mut der = vec![0x02, digits.len() as u8 + u8::from(pad)];
    if pad {
        der.push(0);
    }
    der.extend_from_slice(digits);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_fewest_bytes_and_no_sign() {
        assert_eq!(integer(&[0; 32]), [0x02, 1, 0]);
        assert_eq!(integer(&[0, 0, 0x7f]), [0x02, 1, 0x7f]);
        assert_eq!(integer(&[0, 0x80]), [0x02, 2, 0, 0x80]);
        assert_eq!(integer(&[0xff; 32]).len(), 35);
        let der = der_of(&[0xff; 64]).unwrap();
        assert_eq!((der.len(), &der[..2]), (72, &[0x30, 70][..]));
        assert!(der_of(&[1; 63]).is_none());
    }

    #[test]
    fn a_point_is_taken_with_and_without_its_wrapping() {
        let mut point = vec![7; POINT];
        point[0] = 4;
        let wrapped = [&[0x04, 65][..], &point].concat();
        assert_eq!(unwrapped(&wrapped), Some(&point[..]));
        assert_eq!(unwrapped(&point), Some(&point[..]));
        for wrong in [&point[1..], &wrapped[1..], &[][..], &[4]] {
            assert_eq!(unwrapped(wrong), None);
        }
    }
}
