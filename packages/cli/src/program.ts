/** The command line: names, options and help. What a command does is in the file of its name. */
import { Command } from 'commander';
import { list as listAudit } from './audit/list.ts';
import { addBackup } from './backup/command.ts';
import { bench } from './bench/bench.ts';
import { type Context, collect, collectPairs, wholeNumber } from './context.ts';
import { addMachine } from './install/command.ts';
import { addKey } from './key/command.ts';
import { copy } from './sandbox/copy.ts';
import { create } from './sandbox/create.ts';
import { destroy } from './sandbox/destroy.ts';
import { exec } from './sandbox/exec.ts';
import { fork } from './sandbox/fork.ts';
import { get } from './sandbox/get.ts';
import { list } from './sandbox/list.ts';
import { listFiles } from './sandbox/list-files.ts';
import { logs } from './sandbox/logs.ts';
import { pause } from './sandbox/pause.ts';
import { policyOf, withPolicy } from './sandbox/policy.ts';
import { resume } from './sandbox/resume.ts';
import { shell } from './sandbox/shell.ts';
import { stat } from './sandbox/stat.ts';
import { update } from './sandbox/update.ts';
import { create as createSnapshot } from './snapshot/create.ts';
import { deleteSnapshots } from './snapshot/delete.ts';
import { list as listSnapshots } from './snapshot/list.ts';
import { addTeam } from './team/command.ts';

export interface UpFlags {
  json?: boolean;
  verbose?: boolean;
  tlsCert?: string;
  tlsKey?: string;
  insecure?: boolean;
  drain?: boolean;
}

export interface Commands {
  /** Makes the context of a command, given its options. */
  context: (options: { json?: boolean }) => Context;
  up: (options: UpFlags) => Promise<void>;
  /** The exit code of the process when its command is done. */
  exit: (code: number) => void;
}

const ENVIRONMENT = `
Environment:
  THAW_URL      where Thaw listens (http://127.0.0.1:8080)
  THAW_API_KEY  the key; without it the one in THAW_DATA is used
  THAW_DATA     the data folder (/var/lib/thaw)

Exit codes: 0 done, 1 an error, 2 wrong usage, 130 interrupted; exec and shell have the command's own.`;

const UP_ENVIRONMENT = `
Environment:
  THAW_LISTEN            where the API listens (127.0.0.1:8080)
  THAW_PROXY_LISTEN      where ports of sandboxes are reached in clear text (127.0.0.1:8081), or off
  THAW_PROXY_TLS_LISTEN  and by HTTPS, with THAW_PROXY_TLS_CERT and THAW_PROXY_TLS_KEY: a certificate for *.DOMAIN
  THAW_DOMAIN            the domain of their names, PORT-SANDBOX.DOMAIN, with its port if that is not 443
  THAW_DATA, THAW_RUN    the data folder (/var/lib/thaw), and that of sockets (/run/thaw)
  DATABASE_URL           a PostgreSQL of your own`;

export function buildProgram(commands: Commands): Command {
  const program = new Command('thaw')
    .description('Sandboxes that pause, resume and fork: microVMs on a machine of your own')
    .enablePositionalOptions()
    .addHelpText('after', ENVIRONMENT);
  program
    .command('up')
    .description('run Thaw on this machine until Ctrl-C; sandboxes outlive it')
    .option('--json', 'one line of JSON when it is ready')
    .option('--verbose', 'everything the daemons log, on standard error')
    .option('--tls-cert <file>', 'serve HTTPS with this certificate (PEM; THAW_TLS_CERT)')
    .option('--tls-key <file>', 'and its key (THAW_TLS_KEY)')
    .option('--insecure', 'serve clear text also off loopback (THAW_INSECURE=1)')
    .option('--drain', 'pause every sandbox when it stops, instead of leaving them running')
    .addHelpText('after', UP_ENVIRONMENT)
    .action((options) => commands.up(options));
  addSandbox(program.command('sandbox').description('virtual machines').enablePositionalOptions(), commands);
  addSnapshot(program.command('snapshot').description('templates made of sandboxes'), commands);
  addBackup(program, commands);
  addKey(program.command('key').description('API keys and what they may have at once'), commands);
  addTeam(
    program
      .command('team')
      .description('teams, for operators: each has keys, sandboxes and templates of its own'),
    commands,
  );
  addAudit(
    program.command('audit').description('who wanted to change what, and what came of it, newest first'),
    commands,
  );
  json(program.command('bench').description('measure this installation, by the calls that its users make'))
    .option('--rounds <n>', 'how often everything is done (5)', wholeNumber)
    .option('-t, --template <name>', 'what is measured (minimal)')
    .action((options) => bench(commands.context(options), options));
  addMachine(program, commands);
  return program;
}

function addSandbox(sandbox: Command, { context, exit }: Commands): void {
  withPolicy(json(sandbox.command('create').description('make a sandbox and print its id')))
    .option('-t, --template <name>', 'what it starts from (minimal)')
    .option('--vcpus <n>', 'virtual CPUs (1)', wholeNumber)
    .option('--memory <mb>', 'memory in MiB (512)', wholeNumber)
    .option('--disk <mb>', 'disk in MiB (4096)', wholeNumber)
    .option('-e, --env <name=value>', 'environment of its processes; may be repeated', collectPairs)
    .option('-m, --metadata <name=value>', 'a note to find it by; may be repeated', collectPairs)
    .action(({ json, memory, disk, template, vcpus, env, metadata, ...policy }) =>
      create(context({ json }), {
        ...policyOf(policy),
        ...(template && { template }),
        ...(vcpus !== undefined && { vcpus }),
        ...(env && { env }),
        ...(metadata && { metadata }),
        ...(memory && { memory_mb: memory }),
        ...(disk && { disk_mb: disk }),
      }),
    );
  json(sandbox.command('ls').description('list sandboxes, newest first'))
    .option('--status <list>', 'only these, comma-separated; stopped ones are listed only if named')
    .option('-t, --template <name>', 'only of this template')
    .option('-m, --metadata <name=value>', 'only with this note; may be repeated', collectPairs)
    .action((options) => list(context(options), options));
  json(sandbox.command('get').description('everything about one sandbox'))
    .argument('<id>')
    .action((id, options) => get(context(options), id));
  json(sandbox.command('stat').description('memory, page faults and processes of a running sandbox'))
    .argument('<id>')
    .action((id, options) => stat(context(options), id));
  json(sandbox.command('logs').description('who did what to a sandbox, and what its console said last'))
    .argument('<id>')
    .option('--events', 'only who did what')
    .option('--console', 'only the console: boot messages and the serial port')
    .action((id, options) => logs(context(options), id, options));
  json(sandbox.command('exec').description('run a command in a sandbox; its exit code is the exit code'))
    .argument('<id>')
    .argument('<command...>', 'the command and its arguments')
    .option('-i, --interactive', 'pass standard input on')
    .option('-u, --user <name>', 'user of the guest (root)')
    .option('-w, --cwd <path>', 'working directory')
    .option('-e, --env <name=value>', 'environment; may be repeated', collectPairs)
    .option('--timeout <sec>', 'end it after this time (0: never)', wholeNumber)
    .passThroughOptions()
    .action(async (id, argv, options) => exit(await exec(context(options), id, argv, options)));
  sandbox
    .command('shell')
    .description('open a shell in a sandbox on this terminal')
    .argument('<id>')
    .option('-u, --user <name>', 'user of the guest (root)')
    .option('-w, --cwd <path>', 'working directory')
    .option('-e, --env <name=value>', 'environment; may be repeated', collectPairs)
    .action(async (id, options) => exit(await shell(context({}), id, options)));
  json(sandbox.command('ls-files').description("list a folder of a sandbox; the user's home unless given"))
    .argument('<id>')
    .argument('[path]')
    .option('-d, --depth <n>', 'levels of folders (1)', wholeNumber)
    .option('-u, --user <name>', 'user of the guest (root)')
    .action((id, folder, options) => listFiles(context(options), id, folder ?? '.', options));
  json(sandbox.command('cp').description('copy a file; one side is ID:PATH, the other a path or -'))
    .argument('<from>')
    .argument('<to>')
    .option('-u, --user <name>', 'owner in the guest (root)')
    .action((from, to, options) =>
      copy(context(options), from, to, options.user ? { user: options.user } : {}),
    );
  json(sandbox.command('pause').description('freeze sandboxes to disk and free their memory'))
    .argument('<id...>')
    .option('--no-memory', 'keep the disk alone')
    .action((ids, { memory, ...options }) => pause(context(options), ids, memory));
  json(sandbox.command('resume').description('let paused sandboxes go on'))
    .argument('<id...>')
    .option('--no-memory', 'boot from the disk alone')
    .action((ids, { memory, ...options }) => resume(context(options), ids, memory));
  json(sandbox.command('fork').description('make sandboxes that go on from where one is; it goes on too'))
    .argument('<id>')
    .option('-n, --count <n>', 'how many (1)', wholeNumber)
    .action((id, { count = 1, ...options }) => fork(context(options), id, count));
  withPolicy(json(sandbox.command('set').description('change when a sandbox ends and what it may reach')))
    .argument('<id>')
    .option('-m, --metadata <name=value>', 'notes instead of those it has; may be repeated', collectPairs)
    .action((id, { json, metadata, ...policy }) =>
      update(context({ json }), id, { ...policyOf(policy), ...(metadata && { metadata }) }),
    );
  json(sandbox.command('rm').description('destroy sandboxes, with everything of theirs'))
    .argument('<id...>')
    .action((ids, options) => destroy(context(options), ids));
}

function addAudit(audit: Command, { context }: Commands): void {
  json(audit)
    .option('-n, --limit <n>', 'so many lines at most (100)', wholeNumber)
    .option('--team <name>', 'only of this team; for operators, who see those of all')
    .option('--key <id>', 'only of this key: its id, or its first characters')
    .option('--verb <verb>', 'only of this verb, such as createSandbox')
    .option('--target <id>', 'only about this id or name')
    .option('--outcome <code>', 'only done, failed, or the code of an error')
    .option('--since <time>', 'only from this time on, such as 2026-01-31T12:00:00Z')
    .option('--until <time>', 'only before this time')
    .action(({ json, ...options }) => listAudit(context({ json }), options));
}

function addSnapshot(snapshot: Command, { context }: Commands): void {
  json(
    snapshot.command('create').description('freeze a sandbox into a template and print its name; it goes on'),
  )
    .argument('<sandbox>')
    .argument('[name]')
    .option('--overwrite', 'replace the template of that name')
    .option('--run <command>', 'for sh, before it is frozen; may be repeated', collect)
    .option('--ready <command>', 'frozen only when this command of sh ends with 0')
    .option('--warm-up-timeout <sec>', 'for all of these (60)', wholeNumber)
    .action((sandbox, name, { json, ...options }) =>
      createSnapshot(context({ json }), sandbox, name, options),
    );
  json(snapshot.command('ls').description('list templates, newest first'))
    .option('--type <type>', 'base or snapshot')
    .action((options) => listSnapshots(context(options), options));
  json(snapshot.command('rm').description('delete templates; sandboxes made of them go on'))
    .argument('<name...>')
    .action((names, options) => deleteSnapshots(context(options), names));
}

function json(command: Command): Command {
  return command.option('--json', 'print JSON');
}
