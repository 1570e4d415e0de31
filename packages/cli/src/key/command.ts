/** `thaw key …`: names, options and help. */
import type { Command } from 'commander';
import type { Commands } from '../program.ts';
import { create } from './create.ts';
import { list } from './list.ts';
import { quota, quotaOptions } from './quota.ts';
import { revoke } from './revoke.ts';

export function addKey(key: Command, { context }: Commands): void {
  ofTeam(
    quotaOptions(
      key
        .command('create')
        .description('make an API key and print it: it is never shown again')
        .argument('<name>'),
    ),
  )
    .option('--admin', 'may make, change and revoke keys')
    .option('--operator', 'may administrate all teams')
    .action((name, options) => create(context(options), name, options));
  ofTeam(key.command('ls').description('list API keys, with their quotas and what is used of them')).action(
    (options) => list(context(options), options),
  );
  ofTeam(
    key
      .command('revoke')
      .description('make API keys invalid; sandboxes made with them go on')
      .argument('<id...>'),
  ).action((ids, options) => revoke(context(options), ids, options));
  ofTeam(
    quotaOptions(
      key
        .command('quota')
        .description('show or change the quota of a key, or of all keys of the own team together')
        .argument('<id>', "a key's id, or `team`"),
    ),
  ).action((id, options) => quota(context(options), id, options));
}

/** For operators: the keys of another team. */
function ofTeam(command: Command): Command {
  return command
    .option('--team <name>', 'of this team, instead of the own one; for operators')
    .option('--json', 'print JSON');
}
