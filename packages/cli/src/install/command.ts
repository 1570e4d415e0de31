/** `thaw doctor`, `install`, `upgrade`, `uninstall`: names, options and help. */
import type { Command } from 'commander';
import { readConfig } from '../config.ts';
import { printJson, printLine } from '../print.ts';
import type { Commands } from '../program.ts';
import { DEFAULT_PREFIX } from './paths.ts';
import { readVersionSync } from './version.ts';

interface Place {
  prefix: string;
  root: string;
  json?: boolean;
}

const EXIT_UNABLE = 1;

/** Each loads what it needs when it is used. */
export function addMachine(program: Command, { context, exit }: Commands): void {
  program.version(versionText(), '-V, --version', 'print the version');
  program
    .command('doctor')
    .description('what this machine can do for sandboxes, and what to do about what is missing')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExit code: 0 if sandboxes can run here, 1 if not.')
    .action(async (options) => {
      context(options);
      const { doctor } = await import('../doctor/doctor.ts');
      if (!(await doctor(readConfig(process.env), process.env, options))) exit(EXIT_UNABLE);
    });
  place(program.command('install'))
    .description('install the version that this program belongs to, and start it with the machine')
    .option('--no-systemd', 'write no units and start nothing; print how to start')
    .action(async ({ systemd, ...options }: Place & { systemd: boolean }) => {
      const { install } = await import('./install.ts');
      const done = await install({ ...common(options), systemd });
      if (options.json) return printJson(done);
      await printLine(`Thaw ${done.version} is installed in ${done.prefix}.`);
      if (done.problems.length > 0)
        await printLine(
          `Before sandboxes can run here:\n${done.problems.map((line) => `  ${line}`).join('\n')}`,
        );
      await printLine(
        done.started ? 'It runs, and starts with this machine.' : `To start it, as root:\n  ${done.start}`,
      );
    });
  place(program.command('upgrade'))
    .description('make the version that this program belongs to the installed one; sandboxes go on running')
    .action(async (options: Place) => {
      const { upgrade } = await import('../upgrade/upgrade.ts');
      const done = await upgrade(common(options));
      if (options.json) return printJson(done);
      await printLine(
        `Thaw ${done.version} is installed${done.restarted ? ' and runs' : '; it was not running'}.`,
      );
    });
  place(program.command('uninstall'))
    .description('remove what install made; data stays')
    .option('--purge', 'remove sandboxes, templates, database and settings too')
    .option('--force', 'pause sandboxes that run')
    .action(async (options: Place & { purge?: boolean; force?: boolean }) => {
      const { uninstall } = await import('../uninstall/uninstall.ts');
      const { purge = false, force = false } = options;
      const done = await uninstall({ ...common(options), purge, force });
      if (options.json) return printJson(done);
      await printLine('Thaw is removed.');
      if (done.kept.length > 0) await printLine(`Kept: ${done.kept.join(', ')}`);
    });

  function common({ prefix, root, json = false }: Place) {
    const { progress } = context({ json });
    return { config: readConfig(process.env), env: process.env, progress, prefix, root };
  }
}

function versionText(): string {
  const { version: folder } = readConfig(process.env);
  const found = folder === undefined ? undefined : readVersionSync(folder);
  return found === undefined ? 'a checkout' : `${found.version} (${found.id})`;
}

function place(command: Command): Command {
  return command
    .option('--prefix <folder>', 'where the versions are', process.env.THAW_PREFIX || DEFAULT_PREFIX)
    .option('--root <folder>', 'work on a system in this folder instead of on this machine', '')
    .option('--json', 'print JSON');
}
