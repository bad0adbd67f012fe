//! All objects that were seen, by where they came from, and what is wrong with them.
//!
//! `apply`, `delete` and `reset` take objects in, [`Index::assemble`] gives snapshots out. No client, no clock, no log.
//!
//! Holds: what counts of an object that two places name is what the first place says (in the order of [`Scope`]); the
//! other is reported, and takes over when the first is gone. A reset equals the single changes that it stands for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::facts::{Deployment, Parsed, Said, parse_secret, parse_service, parse_slice};
use super::objects::{Kind, Object, ObjectKey};
use crate::core::assemble::{Assembled, Facts, LiveStates, Router, World};
use crate::core::facts::Problem;
use crate::core::snapshot::Snapshot;

/// Where objects come from: one watch of the API server, or one file. A reset replaces all objects of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// Which feed, in the order in which the operator named the sources.
    pub feed: usize,
    /// Which part of it, as messages name it.
    pub part: Arc<str>,
    /// Whether it belongs to the operator of the router, and may name addresses of this machine.
    pub is_trusted: bool,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Index {
    world: World,
    objects: HashMap<ObjectKey, Vec<Entry>>,
    scopes: HashMap<Scope, HashSet<ObjectKey>>,
    /// What is wrong with objects.
    troubled: BTreeMap<ObjectKey, Vec<Problem>>,
    /// What is wrong with sources, by what the sources call it.
    sources: BTreeMap<Arc<str>, Problem>,
    problems_changed: bool,
}

/// What one scope says about an object.
#[derive(Debug)]
struct Entry {
    scope: Scope,
    parsed: Parsed,
}

impl Index {
    /// An empty one for a router with these settings.
    pub fn for_router(router: Router) -> Self {
        Self { world: World::for_router(router), ..Self::default() }
    }

    /// An object is new or was changed.
    pub fn apply(&mut self, scope: &Scope, object: &Object) {
        let key = object.key();
        let entries = self.objects.entry(key.clone()).or_default();
        let position = entries.binary_search_by(|entry| entry.scope.cmp(scope));
        let last = position.ok().and_then(|at| entries.get(at)).map(|entry| &entry.parsed.said);
        let parsed = match object {
            Object::Service(service) => parse_service(service, last.and_then(deployment)),
            Object::EndpointSlice(slice) => parse_slice(slice, scope.is_trusted),
            Object::Secret(secret) => parse_secret(secret),
        };
        if parsed.is_void() {
            return self.delete(scope, &key);
        }
        match position {
            Ok(at) => {
                if let Some(entry) = entries.get_mut(at) {
                    entry.parsed = parsed;
                }
            }
            Err(at) => {
                entries.insert(at, Entry { scope: scope.clone(), parsed });
                self.scopes.entry(scope.clone()).or_default().insert(key.clone());
            }
        }
        self.settle(&key);
    }

    /// An object is gone.
    pub fn delete(&mut self, scope: &Scope, key: &ObjectKey) {
        if let Some(keys) = self.scopes.get_mut(scope) {
            keys.remove(key);
            if keys.is_empty() {
                self.scopes.remove(scope);
            }
        }
        if let Some(entries) = self.objects.get_mut(key) {
            entries.retain(|entry| entry.scope != *scope);
            if entries.is_empty() {
                self.objects.remove(key);
            }
            self.settle(key);
        }
    }

    /// These are all objects of the scope.
    pub fn reset(&mut self, scope: &Scope, objects: &[Object]) {
        let kept: HashSet<ObjectKey> = objects.iter().map(Object::key).collect();
        let known = self.scopes.get(scope).into_iter().flatten();
        let gone: Vec<_> = known.filter(|key| !kept.contains(*key)).cloned().collect();
        for key in gone {
            self.delete(scope, &key);
        }
        for object in objects {
            self.apply(scope, object);
        }
    }

    /// What is wrong with a source, or a part of it, now; `None` when nothing is any more.
    pub fn report(&mut self, part: &Arc<str>, problem: Option<Problem>) {
        let before = match problem.clone() {
            Some(problem) => self.sources.insert(part.clone(), problem),
            None => self.sources.remove(part),
        };
        self.problems_changed |= before != problem;
    }

    /// Builds what changed on top of `last`; see [`World::assemble`].
    pub fn assemble(&mut self, last: &Snapshot, states: &impl LiveStates) -> Option<Assembled> {
        let assembled = self.world.assemble(last, states);
        self.problems_changed |= self.world.take_problems_changed();
        assembled
    }

    /// Everything that is served from, to be kept for the next start.
    pub fn facts(&self) -> Facts {
        self.world.facts()
    }

    /// Tells a world from elsewhere what objects of this kind there are in the namespaces in scope.
    pub fn tell(&self, world: &mut World, kind: Kind, in_scope: impl Fn(&str) -> bool) {
        match kind {
            Kind::Service => world.follow_services(&self.world, in_scope),
            Kind::EndpointSlice => world.follow_slices(&self.world, in_scope),
            Kind::Secret => world.follow_secrets(&self.world, in_scope),
        }
    }

    /// Takes the place of an older world; see [`World::succeed`].
    pub fn succeed(&mut self, older: &World) {
        self.world.succeed(older);
    }

    /// Everything that is wrong now, sorted, if that may be different from the last time this was asked.
    pub fn problems(&mut self) -> Option<Vec<Problem>> {
        if !std::mem::take(&mut self.problems_changed) {
            return None;
        }
        let objects = self.troubled.values().flatten();
        let mut all: Vec<_> = objects.chain(self.sources.values()).chain(self.world.problems()).cloned().collect();
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// Tells the world what an object says now, and notes what is wrong with it.
    fn settle(&mut self, key: &ObjectKey) {
        let entries = self.objects.get(key).map_or(&[][..], Vec::as_slice);
        let said = entries.first().map(|entry| &entry.parsed.said);
        match (key.kind, said) {
            (_, Some(Said::Deployment(said))) => {
                self.world.put_service(&key.object, said.as_ref().map(|said| said.facts.clone()));
            }
            (_, Some(Said::Slice(said))) => self.world.put_slice(&key.object, said.clone()),
            (_, Some(Said::Secret(said))) => self.world.put_secret(&key.object, said.clone()),
            (Kind::Service, None) => self.world.put_service(&key.object, None),
            (Kind::EndpointSlice, None) => self.world.put_slice(&key.object, None),
            (Kind::Secret, None) => self.world.put_secret(&key.object, None),
        }
        let mut problems: Vec<_> = entries.iter().flat_map(|entry| &entry.parsed.problems).cloned().collect();
        if let Some((first, others)) = entries.split_first() {
            problems.extend(others.iter().map(|other| twice(key, &first.scope, &other.scope)));
        }
        let before = if problems.is_empty() {
            self.troubled.remove(key)
        } else {
            self.troubled.insert(key.clone(), problems.clone())
        };
        self.problems_changed |= before.unwrap_or_default() != problems;
    }
}

fn deployment(said: &Said) -> Option<&Deployment> {
    match said {
        Said::Deployment(deployment) => deployment.as_ref(),
        Said::Slice(_) | Said::Secret(_) => None,
    }
}

fn twice(key: &ObjectKey, first: &Scope, other: &Scope) -> Problem {
    Problem {
        kind: key.kind.word(),
        object: key.object.clone(),
        field: "metadata.name".into(),
        message: format!("is in {} and in {}; only the first counts: take one away", first.part, other.part),
    }
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
