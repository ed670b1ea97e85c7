//! One history: a world, and what happens in it, from one seed.

use std::time::Duration;

use rollcall::api::conflicts;
use rollcall::sync::clock;
use rollcall::sync::fields::{EditWork, FieldEdit, ResolveWork};
use rollcall::sync::staging::Word;
use rollcall::sync::work::{Cause, Order, Work};
use rollcall_core::conflict::ConflictRow;
use rollcall_core::document::Pin;
use rollcall_simdisk::{Loss, Refusal};
use rollcall_store::{ConflictFilter, UserFilter};
use tokio::sync::oneshot;

use crate::broken::Broken;
use crate::destination::Mood;
use crate::dice::Dice;
use crate::life::{Ended, Life};
use crate::look::{Looker, Sight};
use crate::people;
use crate::server::{self, Did};
use crate::world::World;

/// Steps of a history.
const STEPS: u64 = 36;

/// So long may it take, at the end, until everything is as it should be.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// How a life ended.
enum End {
    /// The program or the machine died.
    Died(Loss),
    /// It ended by itself, or was told to.
    Left,
    /// The history is over.
    Over,
}

pub(crate) struct History {
    dice: Dice,
    world: World,
    broken: Broken,
    looker: Looker,
    steps_left: u64,
    /// Where simulated time stands.
    now_us: i64,
    /// What happened, newest last.
    pub(crate) said: Vec<String>,
    is_talkative: bool,
}

impl History {
    pub(crate) fn new(seed: u64, is_talkative: bool) -> History {
        let mut dice = Dice::new(seed);
        let broken = Broken::default();
        History {
            world: World::new(&mut dice, &broken),
            dice,
            broken,
            looker: Looker::new(),
            steps_left: STEPS,
            now_us: 1_800_000_000_000_000,
            said: Vec::new(),
            is_talkative,
        }
    }

    fn say(&mut self, what: String) {
        if self.is_talkative {
            println!("{:>4} {} {what}", STEPS - self.steps_left, self.now_us);
        }
        self.looker.trace.update(what.as_bytes());
        self.said.push(what);
    }

    /// Lives it through; gives what names everything that happened.
    pub(crate) fn run(&mut self) -> Result<u64, String> {
        let mut failures = 0;
        loop {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .map_err(|e| e.to_string())?;
            let seed = self.dice.next();
            let end = runtime.block_on(async {
                clock::simulate(self.now_us, seed);
                let end = self.live(&mut failures).await;
                self.now_us = clock::now_us();
                end
            });
            drop(runtime);
            let loss = match end? {
                End::Over => break,
                End::Died(loss) => loss,
                End::Left => match self.dice.one_in(4) {
                    true => Loss::Power,
                    false => Loss::Process,
                },
            };
            self.say(format!("the next life begins after {loss:?}"));
            let again = self.world.disk.start_again(loss);
            again.map_err(|e| e.to_string())?;
        }
        let usage = self.world.disk.usage();
        self.looker.trace.update(&usage.writes.to_le_bytes());
        self.looker.trace.update(&usage.flushes.to_le_bytes());
        Ok(self.looker.trace.digest())
    }

    async fn live(&mut self, failures: &mut u32) -> Result<End, String> {
        let dice = self.dice.fork();
        let begun = Life::begin(
            &self.world.config,
            &self.world.around,
            self.world.sizes,
            dice,
        );
        let mut life = match begun {
            Ok(life) => life,
            Err(e) => {
                self.say(format!("the store does not open: {e}"));
                *failures += 1;
                self.excused(&e.to_string(), *failures)?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Ok(match self.world.disk.is_dead() {
                    true => End::Died(self.loss()),
                    false => End::Left,
                });
            }
        };
        *failures = 0;
        loop {
            let end = match self.steps_left.checked_sub(1) {
                Some(left) => {
                    self.steps_left = left;
                    self.step(&mut life).await?
                }
                None => return self.end(life).await,
            };
            match end {
                Some(End::Left) if !self.world.disk.is_dead() => {
                    return self.leave(life).await;
                }
                Some(end) => return Ok(end),
                None => {}
            }
            if let Some(end) = self.after(&mut life).await? {
                return Ok(end);
            }
        }
    }

    /// What is to be seen behind a step.
    async fn after(&mut self, life: &mut Life) -> Result<Option<End>, String> {
        self.now_us = clock::now_us();
        if !self.world.disk.is_dead() {
            self.look(life)?;
        }
        if let Some(found) = self.broken.found() {
            return Err(found);
        }
        if self.world.disk.is_dead() {
            return Ok(Some(End::Died(self.loss())));
        }
        match life.ended().await {
            None => Ok(None),
            Some(Ended::Panicked(what)) => Err(format!("a task ended: {what}")),
            Some(Ended::Fenced) => {
                self.say("another instance has taken over".to_owned());
                Ok(Some(End::Left))
            }
            Some(Ended::Store(e)) => {
                self.say(format!("the daemon ends: {e}"));
                self.excused(&e.to_string(), 1)?;
                Ok(Some(End::Left))
            }
        }
    }

    fn look(&mut self, life: &Life) -> Result<(), String> {
        self.looker.look(&Sight {
            config: &self.world.config,
            around: &self.world.around,
            shared: &life.shared,
        })
    }

    /// A store fails only when its disk does.
    fn excused(&mut self, why: &str, times: u32) -> Result<(), String> {
        let disk = &self.world.disk;
        if disk.is_dead() || disk.take_refused() {
            return Ok(());
        }
        if times > 3 {
            // There is space again, sooner or later.
            disk.set_capacity(None);
        }
        match disk.is_full() {
            true => Ok(()),
            false if times > 3 && times < 6 => Ok(()),
            false => Err(format!("the store failed on a disk that did not: {why}")),
        }
    }

    fn loss(&mut self) -> Loss {
        *self.dice.pick(&[Loss::Process, Loss::Power, Loss::Power])
    }

    /// Some time, mostly short.
    fn while_(&mut self) -> Duration {
        let ms = match self.dice.below(12) {
            0..4 => self.dice.below(5),
            4..8 => self.dice.below(100),
            8..10 => self.dice.below(3_000),
            10 => self.dice.below(40_000),
            _ => self.dice.below(400_000),
        };
        Duration::from_micros(ms * 1_000 + self.dice.below(1_000))
    }

    async fn step(&mut self, life: &mut Life) -> Result<Option<End>, String> {
        let names: Vec<String> = self
            .world
            .config
            .sources
            .iter()
            .map(|s| s.name.clone())
            .collect();
        let name = self.dice.pick(&names).clone();
        let server = self.world.around.servers[&name].clone();
        match self.dice.below(40) {
            0..18 => {
                for _ in 0..1 + self.dice.below(3) {
                    let dids = people::transaction(&mut self.dice, &server.rows());
                    self.say(format!("{name}: {dids:?}"));
                    server.commit(clock::now_us(), dids);
                }
            }
            18 => {
                self.say(format!("{name} is cut off"));
                server.cut();
            }
            19 => {
                let is_down = self.dice.one_in(2);
                self.say(format!("{name} is down: {is_down}"));
                server.set_down(is_down);
            }
            20 => {
                let may = !self.dice.one_in(3);
                self.say(format!("{name} may be followed: {may}"));
                server.may_read_log(may);
            }
            21 => {
                let n = self.dice.below(4);
                self.say(format!("{name}: {n} reads fail"));
                server.fail_reads(n);
            }
            22 if self.dice.one_in(3) => {
                self.say(format!("{name} gives its log up"));
                server.lose_log();
            }
            22 | 23 => self.order(life, &name),
            24 | 25 => self.sink(),
            26..31 => self.disk(),
            31 | 32 if self.world.has_limit => self.plans(life).await?,
            31..34 => self.edit(life).await?,
            34 => {
                self.say("the daemon is told to end".to_owned());
                return Ok(Some(End::Left));
            }
            35 => {
                self.say("the program is killed".to_owned());
                self.world.disk.die();
                return Ok(Some(End::Died(self.loss())));
            }
            36 => self.decide(life).await?,
            _ => {}
        }
        let wait = self.while_();
        self.say(format!("{} us go by", wait.as_micros()));
        tokio::time::sleep(wait).await;
        Ok(None)
    }

    fn order(&mut self, life: &Life, name: &str) {
        self.say(format!("{name} is to be reconciled"));
        let entry = life.shared.sources.iter().find(|s| s.name == *name);
        let order = Order::Reconcile {
            cause: Cause::Manual,
            began: None,
        };
        // A queue that is full holds the same order already.
        if let Some(entry) = entry {
            let _ = entry.orders.try_send(order);
        }
    }

    fn sink(&mut self) {
        let name = *self.dice.pick(&crate::world::SINKS);
        let destination = self.world.around.destinations[name].clone();
        let mood = match self.dice.below(6) {
            0 => Mood::Slow(Duration::from_millis(self.dice.below(20_000))),
            1 => Mood::Gone,
            2 => Mood::Deaf,
            3 => {
                let is_picky = self.dice.one_in(2);
                self.say(format!("{name} refuses some: {is_picky}"));
                destination.set_picky(is_picky);
                return;
            }
            4 if self.dice.one_in(2) => {
                self.say(format!("{name} is taken over"));
                destination.fence();
                return;
            }
            _ => Mood::Well,
        };
        self.say(format!("{name} is {mood:?}"));
        destination.set_mood(mood);
    }

    fn disk(&mut self) {
        let calls = self.dice.below(30);
        let disk = self.world.disk.clone();
        match self.dice.below(6) {
            0 => disk.refuse(Refusal::Write, calls),
            1 => disk.refuse(Refusal::Flush, calls / 4),
            2 | 3 => disk.refuse(Refusal::Death, calls),
            4 => disk.set_capacity(Some(disk.used() + self.dice.below(60_000))),
            _ => disk.set_capacity(None),
        }
        self.say(format!("the disk: {:?}", disk));
    }

    /// Somebody looks at a plan.
    async fn plans(&mut self, life: &Life) -> Result<(), String> {
        let plans = life.readers().plans().map_err(|e| e.to_string())?;
        for plan in plans {
            let word = match self.world.may_discard && self.dice.one_in(3) {
                true => Word::Discard,
                false => Word::Approve,
            };
            // Who is kept against the source's word differs from the table by intent.
            self.looker.is_lenient |= word == Word::Discard;
            self.say(format!("a plan of {} records: {word:?}", plan.records));
            let (reply, told) = oneshot::channel();
            let hash = plan.hash;
            self.ask(life, Work::Plan { hash, word, reply }, told).await;
        }
        Ok(())
    }

    /// Somebody writes a value, or takes it back.
    async fn edit(&mut self, life: &Life) -> Result<(), String> {
        let users = life.readers().users(&UserFilter::default(), None, 100);
        let users = users.map_err(|e| e.to_string())?;
        if users.is_empty() {
            return Ok(());
        }
        let user = self.dice.pick(&users).row;
        let name = *self.dice.pick(&["title", "displayName", "nickName"]);
        let Some(attribute) = life.shared.attributes.by_name(name).map(|a| a.id) else {
            return Ok(());
        };
        let edit = match self.dice.below(4) {
            0 => FieldEdit::Unset(attribute),
            1 => FieldEdit::Unpin(attribute),
            _ => FieldEdit::Set {
                attribute,
                value: format!("Own {}", self.dice.below(5)).into_bytes(),
                pin: match self.dice.below(3) {
                    0 => None,
                    1 => Some(Pin::ForGood),
                    _ => Some(Pin::Until(clock::now_us() + 30_000_000)),
                },
            },
        };
        self.say(format!("{user:?}: {edit:?}"));
        let (reply, told) = oneshot::channel();
        let work = Work::Edit(EditWork {
            user,
            edits: vec![edit],
            actor: "ann".to_owned(),
            reason: String::new(),
            reply,
        });
        self.ask(life, work, told).await;
        Ok(())
    }

    /// Somebody decides a conflict that is open.
    async fn decide(&mut self, life: &Life) -> Result<(), String> {
        let open = life.readers().conflicts(ConflictFilter::default(), 100);
        let open = open.map_err(|e| e.to_string())?;
        if open.is_empty() {
            return Ok(());
        }
        let row = self.dice.pick(&open);
        let (name, kind) = (format!("{:016x}", row.fingerprint.0), row.kind);
        let take = 1 + self.dice.below(3);
        let chosen = conflicts::chosen(life.readers(), &name, Some(&take.to_string()));
        // It has not so many candidates.
        let Ok(chosen) = chosen.map_err(|e| e.to_string())? else {
            return Ok(());
        };
        let (reply, told) = oneshot::channel();
        let work = Work::Resolve(ResolveWork {
            fingerprint: chosen.fingerprint,
            choice: chosen.choice.clone(),
            user: chosen.user,
            actor: "ann".to_owned(),
            reason: String::new(),
            reply,
        });
        let word = self.ask(life, work, told).await;
        self.say(format!("{kind:?} {name}: {:?}: {word:?}", chosen.choice));
        if self.dice.one_in(2) {
            self.interfere(life, row);
        }
        Ok(())
    }

    /// What a decision is about changes while its records are read again.
    fn interfere(&mut self, life: &Life, conflict: &ConflictRow) {
        let of = life.shared.sources.iter().find(|s| s.id == conflict.source);
        let Some(server) = of.and_then(|s| self.world.around.servers.get(s.name.as_str())) else {
            return;
        };
        let server = server.clone();
        match self.dice.below(4) {
            0 => server.cut(),
            1 => {
                let may = self.dice.one_in(2);
                self.say(format!("at once: the log may be followed: {may}"));
                server.may_read_log(may);
            }
            _ => {}
        }
        let rows = server.rows();
        let named = rows.keys().filter(|id| {
            let key = server::key_of(**id);
            conflict
                .records
                .iter()
                .any(|k| k.as_slice() == key.as_bytes())
        });
        let named: Vec<u64> = named.copied().collect();
        for id in named {
            if self.dice.one_in(2) {
                self.say(format!("at once: {id} goes"));
                server.commit(clock::now_us(), vec![Did::Delete(id)]);
            }
        }
    }

    /// Gives the answer, unless nobody is there who gives one.
    async fn ask<T>(&mut self, life: &Life, work: Work, told: oneshot::Receiver<T>) -> Option<T> {
        let asked = async {
            life.shared.engine.send(work).await.ok()?;
            told.await.ok()
        };
        let asked = tokio::time::timeout(Duration::from_secs(5), asked).await;
        asked.ok().flatten()
    }

    async fn leave(&mut self, life: Life) -> Result<End, String> {
        match life.stop().await {
            Ok(()) => {}
            Err(Ended::Store(e)) => {
                self.say(format!("the daemon ends badly: {e}"));
                self.excused(&e.to_string(), 1)?;
            }
            Err(Ended::Fenced) => {}
            Err(Ended::Panicked(what)) => return Err(format!("a task ended: {what}")),
        }
        Ok(match self.world.disk.is_dead() {
            true => End::Died(self.loss()),
            false => End::Left,
        })
    }

    /// Everything works again, and in the end everything is as it should be.
    async fn end(&mut self, mut life: Life) -> Result<End, String> {
        self.say("everything works again".to_owned());
        self.world.disk.obey();
        self.world.disk.set_capacity(None);
        for server in self.world.around.servers.values() {
            server.mend();
        }
        for destination in self.world.around.destinations.values() {
            destination.set_mood(Mood::Well);
            destination.set_picky(false);
        }
        let began = tokio::time::Instant::now();
        let mut left = String::new();
        while began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_secs(5)).await;
            if let Some(end) = self.after(&mut life).await? {
                return Ok(end);
            }
            left = self.what_is_left(&life)?;
            if left.is_empty() {
                self.final_look(&life)?;
                return match life.stop().await {
                    Ok(()) => Ok(End::Over),
                    Err(e) => Err(format!("the daemon does not end: {e:?}")),
                };
            }
            if self.world.has_limit {
                self.approve(&life).await?;
            }
        }
        Err(format!("it never ends: {left}"))
    }

    async fn approve(&mut self, life: &Life) -> Result<(), String> {
        let plans = life.readers().plans().map_err(|e| e.to_string())?;
        for plan in plans {
            let (reply, told) = oneshot::channel();
            let (hash, word) = (plan.hash, Word::Approve);
            self.ask(life, Work::Plan { hash, word, reply }, told).await;
        }
        Ok(())
    }

    /// What is not yet as it should be.
    fn what_is_left(&self, life: &Life) -> Result<String, String> {
        let readers = life.readers();
        let gaps = readers.open_gap_count().map_err(|e| e.to_string())?;
        if gaps > 0 {
            return Ok(format!("{gaps} gaps are open"));
        }
        for source in readers.sources().map_err(|e| e.to_string())? {
            let server = &self.world.around.servers[&source.name];
            let at = source.resume.and_then(|(c, _)| crate::server::place_of(&c));
            if at != Some(server.head()) {
                return Ok(format!("{} is at {at:?} of {}", source.name, server.head()));
            }
            if !readers
                .repairs(source.id)
                .map_err(|e| e.to_string())?
                .is_empty()
            {
                return Ok(format!("records of {} are to be read again", source.name));
            }
        }
        if !readers.plans().map_err(|e| e.to_string())?.is_empty() {
            return Ok("a plan waits".to_owned());
        }
        let head = *life.shared.hub.head().borrow();
        for (name, destination) in &self.world.around.destinations {
            if destination.certain() < head {
                return Ok(format!("{name} has not everything"));
            }
        }
        Ok(String::new())
    }

    fn final_look(&mut self, life: &Life) -> Result<(), String> {
        self.look(life)?;
        let damage = life.readers().check().map_err(|e| e.to_string())?;
        if !damage.is_empty() {
            return Err(format!("the file is damaged: {damage:?}"));
        }
        for (name, destination) in &self.world.around.destinations {
            let arrived = destination.arrived();
            let refused = destination.refused();
            for (position, id) in &self.looker.outbox {
                match arrived.get(position) {
                    Some(event) if event.id.replace('-', "") == *id => {}
                    Some(event) => {
                        return Err(format!(
                            "{name} has the event {} at {position}, and the outbox had {id}",
                            event.id
                        ));
                    }
                    None if refused.contains(position) => {}
                    None => return Err(format!("{name} has no event at {position}")),
                }
            }
            if arrived.len() + refused.len() > self.looker.outbox.len() {
                return Err(format!("{name} has events that never were"));
            }
        }
        Ok(())
    }
}
