//! The shared ConfigMap, and each version's way to it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::super::former::ledger as former_ledger;
use super::super::former::ledger::agreement as former_agreement;
use super::*;

/// The ConfigMap's data as text, as the API server holds it.
#[derive(Clone)]
pub struct Object(Arc<Mutex<Held>>);

struct Held {
    data: Option<BTreeMap<String, String>>,
    version: u64,
    is_away: bool,
    random: Random,
    /// Texts that the two do not read alike.
    misread: Vec<String>,
    /// Writes by 0.1.0 and by the present code.
    writes: [u64; 2],
}

impl Object {
    /// None yet; `random` says how long requests take, and which answers are lost.
    pub fn new(random: Random) -> Self {
        let (misread, writes) = (Vec::new(), [0; 2]);
        Self(Arc::new(Mutex::new(Held { data: None, version: 0, is_away: false, random, misread, writes })))
    }

    /// How often 0.1.0 has written, and the present code; an error where a text did not say the same to both.
    pub fn writes(&self) -> Result<[u64; 2], String> {
        let held = self.0.lock().unwrap();
        held.misread.first().map_or(Ok(held.writes), |misread| Err(misread.clone()))
    }

    async fn pause(&self) {
        let wait = self.0.lock().unwrap().random.below(300);
        sleep(Duration::from_millis(wait)).await;
    }

    pub fn set_away(&self, is_away: bool) {
        self.0.lock().unwrap().is_away = is_away;
    }

    /// `None` where it is away.
    async fn read(&self) -> Option<(Option<BTreeMap<String, String>>, u64)> {
        self.pause().await;
        let held = self.0.lock().unwrap();
        (!held.is_away).then(|| (held.data.clone(), held.version))
    }

    /// Compare and swap: false on a conflict, `None` where it is away or the answer is lost.
    async fn write(&self, by: usize, data: BTreeMap<String, String>, version: u64) -> Option<bool> {
        self.pause().await;
        let mut held = self.0.lock().unwrap();
        if held.is_away {
            return None;
        }
        if held.version != version {
            return Some(false);
        }
        held.version += 1;
        held.writes[by] += 1;
        let read = |data: &BTreeMap<String, String>| {
            let former = former_ledger::Ledger::parse("gate/ports", data).map_err(|error| error.to_string())?;
            let present = Ledger::parse("gate/ports", data).map_err(|error| error.to_string())?;
            let texts = [former.encode("gate/ports").ok(), present.encode("gate/ports").ok()];
            let same = former.entries() == present.entries() && texts.iter().all(|text| text.as_ref() == Some(data));
            if same { Ok(()) } else { Err("not the same to both".to_owned()) }
        };
        if let Err(error) = read(&data) {
            held.misread.push(format!("{error}: {data:?}"));
        }
        held.data = Some(data);
        (!held.random.percent(3)).then_some(true)
    }
}

/// An object's [`Store`], for the version whose names are given; the first write of an object is a replacement of version 0.
macro_rules! store {
    ($by:literal, $store:path, $error:ty, $ledger:ty) => {
        impl $store for Object {
            type Version = u64;

            async fn read(&self) -> Result<Option<($ledger, u64)>, $error> {
                match self.read().await {
                    Some((Some(data), version)) => Ok(Some((<$ledger>::parse("gate/ports", &data)?, version))),
                    Some((None, _)) => Ok(None),
                    None => Err(<$error>::Unavailable("away".to_owned())),
                }
            }

            async fn create(&self, ledger: &$ledger) -> Result<(), $error> {
                <Self as $store>::replace(self, ledger, &0).await
            }

            async fn replace(&self, ledger: &$ledger, version: &u64) -> Result<(), $error> {
                match self.write($by, ledger.encode("gate/ports")?, *version).await {
                    Some(true) => Ok(()),
                    Some(false) => Err(<$error>::Conflict),
                    None => Err(<$error>::Unavailable("away".to_owned())),
                }
            }
        }
    };
}

store!(0, former_agreement::Store, former_agreement::StoreError, former_ledger::Ledger);
store!(1, Store, StoreError, Ledger);
