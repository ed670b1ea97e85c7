//! The configuration, the servers, the destinations and the disk of one seed.

use std::fmt::Write as _;
use std::path::Path;

use rollcall::config::{Config, ProcessEnvironment};
use rollcall_simdisk::Disk;
use tempfile::TempDir;

use crate::broken::Broken;
use crate::destination::Destination;
use crate::dice::Dice;
use crate::life::{Around, Sizes};
use crate::server::Server;

pub(crate) const SOURCES: [&str; 2] = ["hr", "it"];
pub(crate) const SINKS: [&str; 2] = ["once", "again"];

pub(crate) struct World {
    /// Everything lies in it.
    _folder: TempDir,
    pub(crate) disk: Disk,
    pub(crate) config: Config,
    pub(crate) around: Around,
    pub(crate) sizes: Sizes,
    /// Whether a source's changes may wait for a person.
    pub(crate) has_limit: bool,
    /// Whether a person may give such changes up.
    pub(crate) may_discard: bool,
}

impl World {
    pub(crate) fn new(dice: &mut Dice, broken: &Broken) -> World {
        let folder = match Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm"),
            false => tempfile::tempdir(),
        };
        let folder = folder.unwrap();
        let store = folder.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let disk = Disk::under(&store, dice.next()).unwrap();
        let sources = 1 + dice.below(2) as usize;
        let has_limit = dice.one_in(3);
        let text = configuration(&store, &SOURCES[..sources], has_limit, dice);
        let config = Config::parse(
            &folder.path().join("rollcall.toml"),
            &text,
            &ProcessEnvironment,
        )
        .unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut around = Around::default();
        for name in &SOURCES[..sources] {
            let server = Server::new(name, dice.next(), broken);
            around.servers.insert((*name).to_owned(), server);
        }
        for name in SINKS {
            let made = Destination::new(name, name == "once", dice.next(), broken);
            around.destinations.insert(name.to_owned(), made);
        }
        let sizes = Sizes {
            checkpoint_bytes: *dice.pick(&[20_000, 200_000, 2_000_000]),
            match_delta_entries: *dice.pick(&[4, 40, 100_000]),
        };
        World {
            _folder: folder,
            disk,
            config,
            around,
            sizes,
            has_limit,
            may_discard: dice.one_in(4),
        }
    }
}

fn configuration(store: &Path, sources: &[&str], has_limit: bool, dice: &mut Dice) -> String {
    let mut text = format!(
        "organization = \"acme\"\n[store]\npath = \"{}\"\noutbox_retention = \"1h\"\n\
         [attributes.level]\ntype = \"integer\"\n[attributes.note]\ntype = \"text\"\n",
        store.display()
    );
    for name in sources {
        let limit = match has_limit {
            true => "{ max_changes = 4, max_percent = 100, floor = 0 }",
            false => "{ action = \"off\" }",
        };
        let leaver = dice.pick(&[
            "{ action = \"deactivate\" }",
            "{ action = \"deactivate\", deactivate_after = \"20s\" }",
            "{ action = \"deactivate\", delete_after = \"1m\", purge_after = \"2m\" }",
            "{ action = \"ignore\" }",
        ]);
        let (rows, pages) = (1 + dice.below(40), 1 + dice.below(9));
        let title = match *name {
            "hr" => "title = { column = \"title\", default = \"Employee\" }",
            _ => "title = \"title\"\nnickName = \"name\"",
        };
        write!(
            text,
            "[source.{name}]\ntype = \"postgres\"\nhost = \"localhost\"\ndatabase = \"d\"\n\
             user = \"u\"\ntable = \"public.people\"\nscope = \"kind != 'contractor'\"\n\
             batch = {{ rows = {rows}, page_rows = {pages} }}\nlimit = {limit}\nleaver = {leaver}\n\
             proof = {{ mode = \"off\" }}\nretry_max = \"5s\"\npoll = {{ every = \"20s\" }}\n\
             [source.{name}.map]\nemail = \"email\"\ndisplayName = \"name\"\n{title}\n\
             active = {{ expr = \"kind != 'left'\" }}\nroles = {{ column = \"roles\", split = \",\" }}\n\
             custom.level = \"level\"\ncustom.note = \"note\"\n"
        )
        .unwrap();
    }
    let mode = dice.pick(&[
        "",
        "[field]\ntitle = { mode = \"target_wins\" }\n",
        "[field]\ntitle = { mode = \"if_empty\" }\ndisplayName = { mode = \"on_create\" }\n",
        "[field]\ntitle = { mode = \"most_recent\" }\n",
    ]);
    text.push_str(mode);
    for name in SINKS {
        writeln!(
            text,
            "[sink.{name}]\ntype = \"ndjson\"\npath = \"/nowhere/{name}\""
        )
        .unwrap();
    }
    text
}
