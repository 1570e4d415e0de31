//! A command or a script on its way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::command::{self, Done};
use super::kernel::Kernel;

#[derive(Clone, Copy, PartialEq)]
pub enum Source {
    Stdout,
    Stderr,
}

pub struct Program {
    steps: VecDeque<Step>,
    env: BTreeMap<String, String>,
    status: i32,
    wake_at: Option<Instant>,
}

#[derive(Default)]
struct Step {
    words: Vec<String>,
    redirect: Option<Redirect>,
    /// Of `&&`.
    after_success: bool,
}

#[derive(Clone)]
struct Redirect {
    path: String,
    append: bool,
}

pub enum Progress {
    Ended(i32),
    Sleeping(Instant),
}

impl Program {
    /// `None`: there is no such command.
    pub fn new(cmd: &str, args: &[String], env: BTreeMap<String, String>) -> Option<Program> {
        let name = command::find(cmd)?;
        let steps = match (name, args) {
            ("sh", [flag, script, ..]) if flag == "-c" => parse(script),
            _ => {
                let words = [name.to_string()].into_iter().chain(args.iter().cloned()).collect();
                [Step { words, ..Step::default() }].into()
            }
        };
        Some(Program { steps, env, status: 0, wake_at: None })
    }

    /// Goes on until it ends or sleeps; `say` takes what it says meanwhile.
    pub fn advance(
        &mut self,
        kernel: &mut Kernel,
        now: Instant,
        mut say: impl FnMut(Source, &str),
    ) -> Progress {
        loop {
            if let Some(at) = self.wake_at.filter(|at| *at > now) {
                return Progress::Sleeping(at);
            }
            self.wake_at = None;
            let Some(step) = self.steps.pop_front() else { return Progress::Ended(self.status) };
            if step.after_success && self.status != 0 {
                continue;
            }
            let done = self.run(kernel, &step);
            for (source, text) in [(Source::Stdout, &done.stdout), (Source::Stderr, &done.stderr)] {
                if !text.is_empty() {
                    say(source, text);
                }
            }
            self.status = done.code;
            if done.exit {
                return Progress::Ended(done.code);
            }
            self.wake_at = (!done.sleep.is_zero()).then(|| now + done.sleep);
        }
    }

    fn run(&self, kernel: &mut Kernel, step: &Step) -> Done {
        let Some((cmd, args)) = step.words.split_first() else { return Done::default() };
        let name = if cmd == "exit" { Some("exit") } else { command::find(cmd) };
        let mut done = match name {
            Some(name) => command::run(kernel, name, args, &self.env),
            None => Done { stderr: format!("sh: 1: {cmd}: not found\n"), code: 127, ..Done::default() },
        };
        if let Some(Redirect { path, append }) = &step.redirect {
            let text = std::mem::take(&mut done.stdout);
            if let Err(why) = command::write(kernel, path, &text, *append) {
                done.stderr.push_str(&format!("sh: 1: {why}\n"));
                done.code = 2;
            }
        }
        done
    }
}

/// A script's steps. Quotes of both kinds keep words together; nothing is expanded.
fn parse(script: &str) -> VecDeque<Step> {
    let mut steps = VecDeque::from([Step::default()]);
    let mut expects_path = None;
    for token in tokens(script) {
        let step = steps.back_mut().expect("there is one from the start");
        match token {
            Token::Semicolon => steps.push_back(Step::default()),
            Token::And => steps.push_back(Step { after_success: true, ..Step::default() }),
            Token::Redirect { append } => expects_path = Some(append),
            Token::Word(path) if expects_path.is_some() => {
                step.redirect = expects_path.take().map(|append| Redirect { path, append });
            }
            Token::Word(word) => step.words.push(word),
        }
    }
    steps
}

enum Token {
    Word(String),
    Semicolon,
    And,
    Redirect { append: bool },
}

fn tokens(script: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let quoted: String = chars.by_ref().take_while(|other| *other != c).collect();
                word.get_or_insert_default().push_str(&quoted);
                continue;
            }
            ' ' | '\t' | '\n' | ';' | '>' => {}
            '&' if chars.peek() == Some(&'&') => {}
            other => {
                word.get_or_insert_default().push(other);
                continue;
            }
        }
        tokens.extend(word.take().map(Token::Word));
        match c {
            ';' | '\n' => tokens.push(Token::Semicolon),
            '>' => tokens.push(Token::Redirect { append: chars.next_if_eq(&'>').is_some() }),
            '&' => {
                chars.next();
                tokens.push(Token::And);
            }
            _ => {}
        }
    }
    tokens.extend(word.map(Token::Word));
    tokens
}
