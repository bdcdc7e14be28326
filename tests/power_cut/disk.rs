//! A disk that loses what was not synced.
//!
//! The model is POSIX, not one file system: `fsync` of a file makes its content durable and not its name; `fsync` of a directory makes the
//! names in it durable. Everything else may be kept, lost, or kept in part when the power fails: writes in any order and in sectors of
//! 512 bytes, lengths without their content, names in any order. A rename is one change: it never loses the file.

use std::collections::{BTreeMap, HashMap};

use rand::Rng;
use rand::rngs::StdRng;

use super::trace::{Operation, Trace};
use super::tree::{Entry, Tree};

/// What a drive writes completely or not at all.
const SECTOR: u64 = 512;
const ROOT: usize = 0;

type Names = BTreeMap<String, usize>;

enum Node {
    File(FileNode),
    Directory { mode: u32, now: Names, durable: Names },
    Symlink { target: String },
}

struct FileNode {
    mode: u32,
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last sync.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLength(u64),
}

/// A change of names, with the directories and the file or directory that it is about.
#[derive(Clone)]
enum NameChange {
    Add {
        directory: usize,
        name: String,
        node: usize,
    },
    Remove {
        directory: usize,
        name: String,
    },
    Move {
        from: (usize, String),
        to: (usize, String),
        node: usize,
    },
}

impl NameChange {
    fn touches(&self, directory: usize) -> bool {
        match self {
            Self::Add { directory: at, .. } | Self::Remove { directory: at, .. } => *at == directory,
            Self::Move { from, to, .. } => from.0 == directory || to.0 == directory,
        }
    }

    /// The names that change: directory, name, and what it means then.
    fn effects(&self) -> Vec<(usize, &str, Option<usize>)> {
        match self {
            Self::Add { directory, name, node } => vec![(*directory, name, Some(*node))],
            Self::Remove { directory, name } => vec![(*directory, name, None)],
            Self::Move { from, to, node } => vec![(from.0, &from.1, None), (to.0, &to.1, Some(*node))],
        }
    }
}

/// What a power cut does to that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it is lost.
    Everything,
    /// All of it was written just in time; a SIGKILL does the same.
    Nothing,
    /// Names are kept and content is lost: the file system writes its journal first.
    Content,
    /// Content is kept and names are lost.
    Names,
    /// Anything, chosen by this seed.
    Random(u64),
}

/// The disk while the recorded program runs.
pub struct Disk {
    nodes: Vec<Node>,
    by_inode: HashMap<u64, usize>,
    /// Changes of names that no sync of their directory has made durable.
    pending: Vec<NameChange>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            nodes: vec![new_directory(0o700)],
            by_inode: HashMap::new(),
            pending: Vec::new(),
        }
    }
}

fn new_directory(mode: u32) -> Node {
    Node::Directory {
        mode,
        now: Names::new(),
        durable: Names::new(),
    }
}

impl Disk {
    /// Performs a recorded operation.
    pub fn apply(&mut self, operation: &Operation, trace: &Trace) {
        match operation {
            Operation::Create { inode, mode, path } => {
                let file = FileNode {
                    mode: *mode,
                    now: Vec::new(),
                    durable: Vec::new(),
                    pending: Vec::new(),
                };
                let node = self.add_node(Node::File(file), path);
                self.by_inode.insert(*inode, node);
            }
            Operation::MakeDirectory { path, mode } => drop(self.add_node(new_directory(*mode), path)),
            Operation::Symlink { path, target } => {
                let target = target.clone();
                self.add_node(Node::Symlink { target }, path);
            }
            Operation::Write { inode, offset, data } => {
                let data = trace.data(data).to_vec();
                self.change_content(*inode, Change::Write { offset: *offset, data });
            }
            Operation::SetLength { inode, length } => self.change_content(*inode, Change::SetLength(*length)),
            Operation::SyncFile { inode } => {
                if let Some(file) = self.by_inode.get(inode).copied().and_then(|node| self.file(node)) {
                    sync_file(file);
                }
            }
            Operation::SyncDirectory { path } => {
                let directory = self.find(path);
                self.sync_names(directory);
            }
            Operation::SyncAll => self.sync_all(),
            Operation::Rename { from, to } => {
                let (from, to) = (self.place(from), self.place(to));
                let node = self.names(from.0)[&from.1];
                self.change_names(NameChange::Move { from, to, node });
            }
            Operation::Link { from, to } => {
                let (node, (directory, name)) = (self.find(from), self.place(to));
                self.change_names(NameChange::Add { directory, name, node });
            }
            Operation::Remove { path } => {
                let (directory, name) = self.place(path);
                self.change_names(NameChange::Remove { directory, name });
            }
            Operation::SetMode { inode, path, mode } => {
                let node = match path.is_empty() {
                    true => self.by_inode.get(inode).copied(),
                    false => Some(self.find(path)),
                };
                if let Some(Node::File(FileNode { mode: old, .. }) | Node::Directory { mode: old, .. }) =
                    node.map(|node| &mut self.nodes[node])
                {
                    *old = *mode;
                }
            }
        }
    }

    fn add_node(&mut self, node: Node, path: &str) -> usize {
        let (directory, name) = self.place(path);
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.change_names(NameChange::Add { directory, name, node });
        node
    }

    fn file(&mut self, node: usize) -> Option<&mut FileNode> {
        match &mut self.nodes[node] {
            Node::File(file) => Some(file),
            _ => None,
        }
    }

    /// Files that were not created below the recorded directory are not known, and not wanted.
    fn change_content(&mut self, inode: u64, change: Change) {
        if let Some(file) = self.by_inode.get(&inode).copied().and_then(|node| self.file(node)) {
            perform(&mut file.now, &change);
            file.pending.push(change);
        }
    }

    fn change_names(&mut self, change: NameChange) {
        for (directory, name, node) in change.effects() {
            match &mut self.nodes[directory] {
                Node::Directory { now, .. } => set_name(now, name, node),
                _ => panic!("not a directory"),
            }
        }
        self.pending.push(change);
    }

    fn sync_names(&mut self, directory: usize) {
        // A file system does not sync half of a rename.
        let mut synced = vec![directory];
        for change in &self.pending {
            if let NameChange::Move { from, to, .. } = change
                && (synced.contains(&from.0) || synced.contains(&to.0))
            {
                synced.extend([from.0, to.0]);
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for change in pending {
            if !synced.iter().any(|directory| change.touches(*directory)) {
                self.pending.push(change);
                continue;
            }
            for (directory, name, node) in change.effects() {
                match &mut self.nodes[directory] {
                    Node::Directory { durable, .. } => set_name(durable, name, node),
                    _ => panic!("not a directory"),
                }
            }
        }
    }

    fn sync_all(&mut self) {
        for node in 0..self.nodes.len() {
            match &mut self.nodes[node] {
                Node::File(file) => sync_file(file),
                Node::Directory { .. } => self.sync_names(node),
                Node::Symlink { .. } => {}
            }
        }
    }

    fn names(&self, directory: usize) -> &Names {
        match &self.nodes[directory] {
            Node::Directory { now, .. } => now,
            _ => panic!("not a directory"),
        }
    }

    fn find(&self, path: &str) -> usize {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.fold(ROOT, |directory, name| {
            *self
                .names(directory)
                .get(name)
                .unwrap_or_else(|| panic!("{path} does not exist"))
        })
    }

    fn place(&self, path: &str) -> (usize, String) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(directory), name.to_owned())
    }

    /// What the program sees.
    pub fn now(&self) -> Tree {
        let names = |directory: usize| self.names(directory).clone();
        self.tree(&names, &mut |file| file.now.clone())
    }

    /// What the next start finds if the power fails now.
    pub fn after_power_cut(&self, loss: Loss, random: &mut StdRng) -> Tree {
        let kept = self.kept_names(loss, random);
        let mut durable: HashMap<usize, Names> = HashMap::new();
        for (node, content) in self.nodes.iter().enumerate() {
            if let Node::Directory { durable: names, .. } = content {
                durable.insert(node, names.clone());
            }
        }
        for change in kept {
            // A file system that has lost a name does not keep the change that follows from it.
            if let NameChange::Move { from, node, .. } = change
                && durable[&from.0].get(&from.1) != Some(node)
            {
                continue;
            }
            for (directory, name, node) in change.effects() {
                set_name(durable.get_mut(&directory).expect("a directory"), name, node);
            }
        }
        let names = |directory: usize| durable[&directory].clone();
        self.tree(&names, &mut |file| content_after(file, loss, random))
    }

    fn kept_names(&self, loss: Loss, random: &mut StdRng) -> Vec<&NameChange> {
        let count = self.pending.len();
        match loss {
            Loss::Everything | Loss::Names => Vec::new(),
            Loss::Nothing | Loss::Content => self.pending.iter().collect(),
            // A journal keeps the order.
            Loss::Random(_) if random.random_bool(0.5) => {
                self.pending.iter().take(random.random_range(0..=count)).collect()
            }
            Loss::Random(_) => self.pending.iter().filter(|_| random.random_bool(0.5)).collect(),
        }
    }

    fn tree(&self, names: &dyn Fn(usize) -> Names, content: &mut dyn FnMut(&FileNode) -> Vec<u8>) -> Tree {
        let mut tree = Tree::default();
        let mut directories = vec![(String::new(), ROOT)];
        while let Some((prefix, directory)) = directories.pop() {
            for (name, node) in names(directory) {
                let path = format!("{prefix}{name}");
                let entry = match &self.nodes[node] {
                    Node::File(file) => Entry::File {
                        mode: file.mode,
                        content: content(file),
                    },
                    Node::Directory { mode, .. } => {
                        directories.push((format!("{path}/"), node));
                        Entry::Directory { mode: *mode }
                    }
                    Node::Symlink { target } => Entry::Symlink { target: target.clone() },
                };
                tree.0.insert(path, entry);
            }
        }
        tree
    }
}

fn sync_file(file: &mut FileNode) {
    for change in file.pending.drain(..) {
        perform(&mut file.durable, &change);
    }
}

fn set_name(names: &mut Names, name: &str, node: Option<usize>) {
    match node {
        Some(node) => drop(names.insert(name.to_owned(), node)),
        None => drop(names.remove(name)),
    }
}

fn perform(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => {
            let (begin, end) = (*offset as usize, *offset as usize + data.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[begin..end].copy_from_slice(data);
        }
        Change::SetLength(length) => content.resize(*length as usize, 0),
    }
}

/// Performs a change in part: each sector is written or not.
fn perform_torn(content: &mut Vec<u8>, change: &Change, random: &mut StdRng) {
    let Change::Write { offset, data } = change else {
        perform(content, change);
        return;
    };
    let mut at = 0;
    while at < data.len() {
        let begin = offset + at as u64;
        let end = data.len().min(at + (SECTOR - begin % SECTOR) as usize);
        if random.random_bool(0.5) {
            let sector = Change::Write {
                offset: begin,
                data: data[at..end].to_vec(),
            };
            perform(content, &sector);
        }
        at = end;
    }
}

fn content_after(file: &FileNode, loss: Loss, random: &mut StdRng) -> Vec<u8> {
    match loss {
        Loss::Everything | Loss::Content => return file.durable.clone(),
        Loss::Nothing | Loss::Names => return file.now.clone(),
        Loss::Random(_) if file.pending.is_empty() => return file.durable.clone(),
        Loss::Random(_) => {}
    }
    let mut content = file.durable.clone();
    match random.random_range(0..5) {
        0 => {}
        1 => content.clone_from(&file.now),
        // The length is in the journal, the content is not on the disk.
        2 => content.resize(file.now.len(), 0),
        // In order, and the last one torn.
        3 => {
            let kept = random.random_range(0..file.pending.len());
            file.pending[..kept]
                .iter()
                .for_each(|change| perform(&mut content, change));
            perform_torn(&mut content, &file.pending[kept], random);
        }
        // In any order.
        _ => {
            for change in &file.pending {
                match random.random_range(0..4) {
                    0 => perform_torn(&mut content, change, random),
                    1 => perform(&mut content, change),
                    _ => {}
                }
            }
        }
    }
    content
}
