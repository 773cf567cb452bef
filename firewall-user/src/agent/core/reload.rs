//! From the policy in force to the next: whole, or not at all.

use std::time::{Instant, SystemTime};

use super::{
    super::{bans, error::CoreError},
    Core, complete, find_interfaces, random_seed,
};
use crate::{
    config::{self, Config},
    control::api,
    dmz::{
        compile::{self, Compiled},
        instance::Instance,
        shared::{self, Shared},
    },
    events::format_time,
    host::interface::Interface,
};

impl Core {
    /// Compiles the configuration anew and swaps it in. On an error everything stays as it was.
    pub fn reload(&mut self) -> Result<api::Reloaded, CoreError> {
        let began = Instant::now();
        let result = self.try_reload();
        self.reloads.last = Some(format_time(SystemTime::now()));
        match &result {
            Ok(_) => {
                self.reloads.succeeded += 1;
                self.reloads.last_error = None;
            }
            Err(error) => {
                self.reloads.failed += 1;
                self.reloads.last_error = Some(error.to_string());
            }
        }
        let changed = result?;
        Ok(api::Reloaded {
            generation: self.compiled.policy.generation,
            unchanged: !changed,
            milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// `false` if nothing had changed.
    fn try_reload(&mut self) -> Result<bool, CoreError> {
        self.read_at = SystemTime::now();
        let loaded = config::load(&self.config_path, &self.overrides);
        self.files = match &loaded {
            Ok(config) => config.files.clone(),
            Err(errors) => errors.files().to_vec(),
        };
        let config = loaded?;
        self.overrides.file_is_optional &= config.files.is_empty();
        // One that was there once may be gone for a while: that is no reason to refuse a better policy.
        let interfaces = find_interfaces(&config.interfaces, &self.config.interfaces)?;
        let mut compiled = compile::compile(&config, &self.compiled.slots)?;
        let generation = self.compiled.policy.generation;
        complete(&mut compiled, &interfaces, generation, self.trace);
        let events = (config.events != self.config.events).then(|| self.config.events.clone());
        if events.is_some() {
            self.sinks.reconfigure(&config.events)?;
        }
        let late = (config.metrics, config.control_group.clone()) != self.bound;
        let late =
            late.then(|| "`[metrics]` and `[control]` have changed: they take effect with the next start".to_owned());
        let same_apis = config.apis == self.config.apis
            && config.gateway == self.config.gateway
            && config.reputation == self.config.reputation;
        let same_place = config.interfaces == self.config.interfaces
            && config.xdp_mode == self.config.xdp_mode
            && config.on_agent_exit == self.config.on_agent_exit
            && config.dmz.tables == self.config.dmz.tables;
        let unchanged = compiled == self.compiled && same_place && same_apis;
        if !unchanged {
            compiled.policy.generation = generation.wrapping_add(1);
        }
        // Certificates may have changed even so. What can fail of the gateway fails before anything changes.
        let prepared = self.gateway.prepare(&config, compiled.policy.generation).map_err(CoreError::from);
        let swapped = prepared.and_then(|prepared| {
            if unchanged {
                self.config = config;
                self.publish_exempt()?;
            } else {
                self.swap(config, compiled, &interfaces)?;
            }
            Ok(self.gateway.commit(&self.config, prepared)?)
        });
        if let Err(error) = swapped {
            if let Some(Err(back)) = events.as_ref().map(|events| self.sinks.reconfigure(events)) {
                tracing::error!("events do not go where they went before: {back}");
            }
            return Err(error);
        }
        self.warn("restart", late);
        self.warn_of_apis();
        self.warn_of_certificates();
        Ok(!unchanged || events.is_some())
    }

    pub(super) fn swap(
        &mut self,
        config: Config,
        compiled: Compiled,
        interfaces: &[Interface],
    ) -> Result<(), CoreError> {
        let adopted = shared::adopt(&self.paths.pins(), &config.dmz.tables)?;
        let resized = adopted.resized();
        self.shared.set_slots(&self.compiled.slots, &compiled.slots)?;
        let previous = (!resized).then_some(&self.instance);
        let loaded = Instance::load(&compiled, &self.paths.pins(), &config.dmz.tables, previous);
        let next = match loaded {
            Ok(next) => next,
            Err(error) => {
                drop(adopted);
                self.shared.set_slots(&compiled.slots, &self.compiled.slots)?;
                return Err(error.into());
            }
        };
        let mut old_shared = None;
        if resized {
            let fresh = Shared::open(&self.paths.pins(), random_seed())?;
            // Read only now: what the LAN layer asks for from here on goes into both.
            self.condemner.add_table(fresh.ban_table()?);
            let old = std::mem::replace(&mut self.shared, fresh);
            let left_out = bans::carry_over(&mut self.shared, old.all_bans().as_ref().unwrap_or(&adopted.bans));
            old_shared = Some(old);
            self.warn_of_bans(left_out);
        }
        let old_config = std::mem::replace(&mut self.config, config);
        let mut old_instance = std::mem::replace(&mut self.instance, next);
        // Events of the new policy may come before all links carry it; old names stay valid meanwhile.
        let old_compiled = std::mem::replace(&mut self.compiled, compiled.clone());
        self.publish_names();
        if let Err(error) = self.attach_all(interfaces) {
            std::mem::swap(&mut self.instance, &mut old_instance);
            self.config = old_config;
            self.compiled = old_compiled;
            if let Some(old) = old_shared {
                self.condemner.keep_first_table();
                self.shared = old;
            }
            drop(adopted);
            if let Err(back) = self.put_back() {
                self.warn("links", Some(format!("the policy before could not be put back everywhere: {back}")));
            }
            self.publish_names();
            return Err(error);
        }
        adopted.keep();
        self.warn("links", None);
        // Bans set in the old table while the new one was filled.
        if let Some(old) = old_shared {
            self.condemner.keep_last_table();
            bans::carry_over(&mut self.shared, &old.all_bans()?);
        }
        self.publish_exempt()?;
        self.settle(compiled)
    }
}
