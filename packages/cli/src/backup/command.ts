/** `thaw backup` and `thaw restore`: options and help. */
import type { Command } from 'commander';
import { readConfig } from '../config.ts';
import type { Commands } from '../program.ts';

export function addBackup(program: Command, { context }: Commands): void {
  program
    .command('backup')
    .description('write database, sandboxes and templates into one file; Thaw may run meanwhile')
    .argument('<file>')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
A running sandbox is saved as of its last pause or snapshot; one that never had any is left out, and named.
The file holds the API key and what guests hold: keep it as you keep the data folder.`,
    )
    .action(async (file, options) => {
      const { backup } = await import('./backup.ts');
      await backup(context(options), readConfig(process.env), file);
    });
  program
    .command('restore')
    .description(
      'put what a backup holds into an empty data folder, and an empty database if DATABASE_URL is set',
    )
    .argument('<file>')
    .option('--json', 'print JSON')
    .action(async (file, options) => {
      const { restore } = await import('./restore.ts');
      await restore(context(options), readConfig(process.env), file);
    });
}
