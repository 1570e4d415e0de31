/** `thaw key …`: names, options and help. */
import { type Command, InvalidArgumentError } from 'commander';
import { wholeNumber } from '../context.ts';
import type { Commands } from '../program.ts';
import { create } from './create.ts';
import { list } from './list.ts';
import { type Limit, type QuotaOptions, quota } from './quota.ts';
import { revoke } from './revoke.ts';

export function addKey(key: Command, { context }: Commands): void {
  quotaOptions(
    key
      .command('create')
      .description('make an API key and print it: it is never shown again')
      .argument('<name>'),
  )
    .option('--admin', 'may make, change and revoke keys')
    .option('--json', 'print JSON')
    .action((name, options) => create(context(options), name, options));
  key
    .command('ls')
    .description('list API keys, with their quotas and what is used of them')
    .option('--json', 'print JSON')
    .action((options) => list(context(options)));
  key
    .command('revoke')
    .description('make API keys invalid; sandboxes made with them go on')
    .argument('<id...>')
    .option('--json', 'print JSON')
    .action((ids, options) => revoke(context(options), ids));
  quotaOptions(
    key
      .command('quota')
      .description('show or change the quota of a key, or of all keys together')
      .argument('<id>', "a key's id, or `team`"),
  )
    .option('--json', 'print JSON')
    .action((id, options) => quota(context(options), id, options));
}

/** `none` takes a limit away. */
function quotaOptions(command: Command): Command {
  const limits: [keyof QuotaOptions & string, string, string][] = [
    ['sandboxes', 'n', 'sandboxes, paused ones too'],
    ['vcpus', 'n', 'virtual CPUs of sandboxes that are not paused'],
    ['memory', 'mb', 'memory of sandboxes that are not paused, in MiB'],
    ['disk', 'mb', 'disks of all sandboxes, in MiB'],
  ];
  for (const [name, unit, what] of limits)
    command.option(`--${name} <${unit}>`, `the most ${what}; none: no limit`, parseLimit);
  return command;
}

function parseLimit(text: string): Limit {
  if (text === 'none') return text;
  const limit = wholeNumber(text);
  if (limit > 2_147_483_647) throw new InvalidArgumentError('It is too large.');
  return limit;
}
